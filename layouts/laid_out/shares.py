"""Lay a whole checkpoint out by several processes, each by its index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import Checkpoint, Identity, is_remote
from preshuffle.layouts.laid_out.files.manifest import WORK, Manifest
from preshuffle.layouts.laid_out.files.progress import Listener
from preshuffle.layouts.laid_out.remote_source import fetch_for_run
from preshuffle.layouts.laid_out.runs.output_folder import (
    check_apart,
    finishing,
    shared_folder,
)
from preshuffle.layouts.laid_out.runs.share import Share
from preshuffle.layouts.laid_out.runs.sources import JOURNAL
from preshuffle.layouts.laid_out.runs.threads import ThreadExecutor
from preshuffle.layouts.laid_out.whole_checkpoint import Keep, WholeCheckpoint, core_count
from preshuffle.registry import Registry
from preshuffle.registry.values.finding import FindingCode


def lay_out_share(
    checkpoint: Checkpoint | Path | str,
    out: Path | str,
    share: Share,
    *,
    registry: Registry | None = None,
    others: bool = True,
    keep: Keep = "scales",
    workers: int | None = None,
    allow: Collection[FindingCode] = (),
    listener: Listener | None = None,
    **fields: Any,
) -> Manifest | ShareWritten:
    """Write one share; finish where all are written.

    Processes with the same arguments, one for each share, give what ``lay_out_checkpoint`` gives. They need a file
    system that all of them see, and run at once or one after the other. The one that finds all files there writes the
    manifest. Killed, the same call resumes.

    Args:
        checkpoint: a folder, or its address: then one process fetches it, and the others wait.
        out: the folder that all of them write.
        share: which.
        registry: as for ``lay_out_checkpoint``, and so are the others.
        others: likewise.
        keep: likewise.
        workers: likewise.
        allow: likewise.
        listener: called with every event: those of the share, and then those of finishing.
        fields: of the query.

    Returns:
        The manifest where the run is finished, else what was written.

    Raises:
        LaidOutError: as for ``lay_out_checkpoint``, or another process has the share.
    """
    identities: Mapping[str, Identity] = {}
    if isinstance(checkpoint, str) and is_remote(checkpoint):
        fetched = fetch_for_run(checkpoint, Path(out), listener, wait=True)
        checkpoint, identities = fetched.folder, fetched.identities
    else:
        check_apart(checkpoint.folder if isinstance(checkpoint, Checkpoint) else Path(checkpoint), Path(out))
    job = WholeCheckpoint.of(checkpoint, out, registry, allow, fields, others=others, keep=keep)
    job = replace(job, identities=identities)
    units = share.of(job.units, job.plan)
    executor = ThreadExecutor(workers or core_count())
    before = job.finished.state
    with shared_folder(job.out, str(share), [unit.file for unit in units], job.expected()):
        job.write_units(units, executor, listener, f"{JOURNAL}-{share}")
        there = set(os.listdir(job.out))
        missing = len([unit for unit in job.units if unit.file not in there])
        if missing:
            return ShareWritten(share, len(units), missing)
        with finishing(job.out) as alone:
            if not alone:
                return ShareWritten(share, len(units), 0)
            manifest = job.write(executor, listener) if job.finished.state == before else job.finished.read()
    shutil.rmtree(job.out / WORK, ignore_errors=True)
    return manifest


@dataclass(frozen=True, slots=True)
class ShareWritten:
    """Result of a share where others are not written yet.

    Attributes:
        files: how many the share has.
        missing: how many files of others are not there; with 0 another process finishes just now.
    """

    share: Share
    files: int
    missing: int
