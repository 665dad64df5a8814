"""Answers of the service, made from registry and store."""
