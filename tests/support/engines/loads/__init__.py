"""Models that the engines' own loaders load, on a CPU."""
