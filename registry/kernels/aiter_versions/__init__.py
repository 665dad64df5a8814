"""Dispatch behaviour of each AITER version, read from the book."""
