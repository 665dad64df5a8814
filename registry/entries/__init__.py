"""Entries that a book may hold, one model per section."""
