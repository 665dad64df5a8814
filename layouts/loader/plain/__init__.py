"""Plain rows of laid-out layers, for code that knows no layout."""

from preshuffle.layouts.loader.plain.plain_reload import plain_reload
from preshuffle.layouts.loader.plain.plain_view import plain_view

__all__ = ["plain_reload", "plain_view"]
