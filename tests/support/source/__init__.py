"""The source tree as data: its modules, their imports and their docstrings."""
