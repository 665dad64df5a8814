"""Overlays, bodies and requests made to cost as much as they can."""
