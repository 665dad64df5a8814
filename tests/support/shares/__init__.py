"""Shares in processes, and a file system that tags files."""
