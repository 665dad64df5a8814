"""Processes that tests start and kill, and what they ask of the machine."""
