"""Installed stand-ins of engines that load plugins."""
