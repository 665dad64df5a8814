"""Engines' own weight conversions against the book (``preshuffle conform --engine``)."""

from preshuffle.layouts.conform.engines.engine_table import engine_layers

__all__ = ["engine_layers"]
