"""Identify the layout of live bytes against a checkpoint."""
