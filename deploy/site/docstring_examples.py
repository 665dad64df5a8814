"""Griffe extension: docstrings' ``Example:`` is the section that Griffe calls ``Examples:``."""

from __future__ import annotations

import re
from typing import Any, Final

from griffe import Extension, Object

_TITLE: Final = re.compile(r"^( *)Example:$", re.MULTILINE)


class DocstringExamples(Extension):
    """Has examples shown as code, not as an admonition."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the title in an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _TITLE.sub(r"\1Examples:", obj.docstring.value)
