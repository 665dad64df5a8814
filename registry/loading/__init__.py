"""Load books and overlays; index their rules and names."""
