"""Backups of SQLite stores, and read-only inspection of any store."""
