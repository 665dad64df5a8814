"""Lint of what a book says about calls and engines' layers."""
