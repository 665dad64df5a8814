"""Drivers of the engines' own code, for child processes only."""
