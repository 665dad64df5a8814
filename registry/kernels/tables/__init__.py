"""AITER's tuned tables: reading, merging, indexing and checking."""
