"""Errors of checkpoints that are laid out ahead."""

from __future__ import annotations

from preshuffle.registry import PreshuffleError


class LaidOutError(PreshuffleError, ValueError):
    """A laid-out checkpoint cannot be written, read or used.

    The message names the file, and says what to do.
    """


class StaleError(LaidOutError):
    """A laid-out checkpoint is not what is needed: its key differs.

    It was made of another checkpoint, or for another engine, GPU, number of ranks or book.
    """
