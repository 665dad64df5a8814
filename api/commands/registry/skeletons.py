"""Skeletons of book entries: commented YAML that loads as an overlay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from preshuffle.api.commands.options.failures import UsageError

SKELETONS: Final[dict[str, str]] = {
    "model": "acme/moe-1",
    "recipe": "acme.mxfp4",
    "rule": "acme.canary",
    "layout": "acme64",
    "kernel-family": "acme_moe1",
}
"""Kinds of entries that have one, with the id in it."""
_FOLDER: Final = Path(__file__).parent / "skeletons"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def skeleton(kind: str, id: str | None = None, file: str = "FILE") -> str:
    """Return the text of a skeleton.

    Args:
        kind: one of ``SKELETONS``.
        id: of the entry; that of the skeleton by default.
        file: where it will be, for the commands in its comments.

    Raises:
        UsageError: the id is none.
    """
    if id is not None and not _ID.fullmatch(id):
        raise UsageError(f"registry new: id {id!r}; valid: letters, digits and . _ / -")
    text = (_FOLDER / f"{kind}.yaml").read_text(encoding="utf-8").replace("--book FILE", f"--book {file}")
    return text if id is None else re.sub(rf"(?<![\w.-]){re.escape(SKELETONS[kind])}(?![\w.])", id, text)


def write_skeleton(text: str, path: str) -> None:
    """Write a skeleton to a new file.

    Raises:
        UsageError: the file exists, or cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"registry new: {path} exists; name another file") from None
    except OSError as error:
        raise UsageError(f"registry new: {path} cannot be written: {error.strerror or error}") from None
