"""Digests of shards that a finished run has left.

The manifest holds the digests, and must be the same wherever the checkpoint lies. So what tells whether the shards are
still those files, their sizes, times and inodes, is an extended attribute of the manifest, hashed. A copy of the folder
need not have it, nor do all file systems: then shards are hashed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.manifest import MANIFEST

FileState = tuple[int, int, int, int]
"""Size, time of modification in nanoseconds, inode, and time of change (``ctime``), which nobody can set back."""
_ATTRIBUTE: Final = "user.preshuffle.sources"


def remember_states(out: Path, states: Mapping[str, FileState]) -> None:
    """Record which files the manifest's digests are of.

    Args:
        out: the finished folder.
        states: of all shards, by name, before the manifest was written.
    """
    with suppress(OSError):
        os.setxattr(out / MANIFEST, _ATTRIBUTE, _hashed(states))


def finished_digests(finished: FinishedManifest, states: Mapping[str, FileState]) -> dict[str, str]:
    """Return shards' digests of a finished run that read these files.

    Args:
        finished: of the folder.
        states: of all shards, by name, as they are now.
    """
    try:
        if os.getxattr(finished.out / MANIFEST, _ATTRIBUTE) != _hashed(states):
            return {}
        return {one.name: one.digest for one in finished.read().sources}
    except (OSError, LaidOutError):
        return {}


def _hashed(states: Mapping[str, FileState]) -> bytes:
    text = json.dumps(sorted((name, *state) for name, state in states.items()))
    return blake2b(text.encode(), digest_size=16).hexdigest().encode()
