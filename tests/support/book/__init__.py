"""Queries, config.json bodies, observations and random layouts."""
