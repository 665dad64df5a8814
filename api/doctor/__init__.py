"""Report what is installed here and what works."""
