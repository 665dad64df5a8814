"""Signatures of the functions that run experts: arguments as book data."""
