"""Resolve a query: choose the recipe, sizes, call and kernels."""
