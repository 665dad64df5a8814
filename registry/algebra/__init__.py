"""Layouts as permutations: parse, compose, invert, compare, plan copies."""
