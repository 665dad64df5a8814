"""Executor on a Ray cluster: its nodes checked, units as tasks, progress."""
