"""Kernel families: which names belong to each, and what they read."""
