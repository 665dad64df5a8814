"""Compare laid-out bytes with a plain reference implementation."""
