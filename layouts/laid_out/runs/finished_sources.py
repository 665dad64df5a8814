"""Digests of shards that a finished run has left.

The manifest holds the digests, and must be the same wherever the checkpoint lies. So what tells whether the shards are
still those files is an attribute of the manifest. A copy of the folder has none, nor have all file systems: then shards
are hashed again.
"""

from __future__ import annotations

from collections.abc import Mapping

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.manifest import MANIFEST
from preshuffle.layouts.stamps import FileState, remembers_states


def finished_digests(finished: FinishedManifest, states: Mapping[str, FileState]) -> dict[str, str]:
    """Return shards' digests of a finished run that read these files.

    Args:
        finished: the manifest of its folder.
        states: of all shards, by name, as they are now.
    """
    try:
        same = remembers_states(finished.out / MANIFEST, states)
        return {one.name: one.digest for one in finished.read().sources} if same else {}
    except LaidOutError:
        return {}
