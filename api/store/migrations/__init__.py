"""Migrations of the store's schema, one step per file.

A released step never changes.
"""
