"""The service, its store and its page, and the command line."""
