"""AITER's tuned tables: read, merge, index and check them."""
