"""The book held against real code, claim by claim (``preshuffle conform``)."""

from preshuffle.layouts.conform.aiter_source import AiterSource, open_aiter
from preshuffle.layouts.conform.conform import ConformOptions, conform
from preshuffle.layouts.conform.engines import engine_layers
from preshuffle.layouts.conform.errors import ConformError

__all__ = ["AiterSource", "ConformError", "ConformOptions", "conform", "engine_layers", "open_aiter"]
