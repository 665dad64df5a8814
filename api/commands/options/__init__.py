"""Command-line options and input files that commands share."""
