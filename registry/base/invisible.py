"""Escapes of characters that are not seen: controls, directions, joiners."""

from __future__ import annotations

from typing import Final

SPACES: Final = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""Spaces that are no ASCII: seen, though Python calls them not printable."""


def escape_invisible(text: str, keep: str = "") -> str:
    r"""Escape control and format characters, line breaks and unassigned ones.

    What a client sent must not forge lines, steer a terminal, turn the direction of what stands beside it, or look like
    another name.

    Args:
        text: what to show.
        keep: characters that stay as they are.

    Example:
        >>> escape_invisible("prod\u202egnp\n", keep="\n")
        'prod\\u202egnp\n'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
