"""Checksum of a text that stands in the text itself.

Every byte counts, the spaces between its fields included: the checksum's own place is taken as zeros.
"""

from __future__ import annotations

import hashlib
from typing import Final

_NAME: Final = "sha256:"
BLANK: Final = _NAME + "0" * 64
"""What stands for the checksum while it is computed."""


def sealed(data: bytes) -> tuple[bytes, str]:
    """Put the checksum of a text in the place of ``BLANK``.

    Args:
        data: holds ``BLANK`` once.

    Returns:
        The text, and its checksum.

    Example:
        >>> text, checksum = sealed(f'{{"checksum":"{BLANK}"}}'.encode())
        >>> is_sealed(text, checksum), is_sealed(text + b" ", checksum)
        (True, False)
    """
    checksum = _NAME + hashlib.sha256(data).hexdigest()
    return data.replace(BLANK.encode(), checksum.encode()), checksum


def is_sealed(data: bytes, checksum: str) -> bool:
    """Return whether a text fits the checksum in it."""
    stated = checksum.encode()
    if data.count(stated) != 1:
        return False
    return _NAME + hashlib.sha256(data.replace(stated, BLANK.encode())).hexdigest() == checksum
