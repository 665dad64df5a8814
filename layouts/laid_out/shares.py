"""Lay a whole checkpoint out by several processes, each by its index."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import Checkpoint, is_remote
from preshuffle.layouts.laid_out.copied_tensors import Keep
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.manifest import Manifest
from preshuffle.layouts.laid_out.files.progress import Listener
from preshuffle.layouts.laid_out.remote_source import check_small_files
from preshuffle.layouts.laid_out.runs.executor import Executor
from preshuffle.layouts.laid_out.runs.output_folder import (
    check_apart,
    clear_finished,
    finishing,
    own_share,
    remove_partials,
    shared_folder,
)
from preshuffle.layouts.laid_out.runs.share import Share
from preshuffle.layouts.laid_out.runs.sources import JOURNAL
from preshuffle.layouts.laid_out.runs.threads import ThreadExecutor, core_count
from preshuffle.layouts.laid_out.whole_checkpoint import WholeCheckpoint
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
        checkpoint: a folder, or its address: then one process fetches it, and the others wait. Where a run has
            finished in ``out``, only shards come whose identity is another one.
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
    out = Path(out)
    executor = ThreadExecutor(workers or core_count())
    decided = (registry, allow, fields)
    before = FinishedManifest(out).state
    if isinstance(checkpoint, str) and is_remote(checkpoint):
        check_small_files(checkpoint, out)
        with shared_folder(out):
            job = WholeCheckpoint.fetch(checkpoint, out, *decided, listener, others=others, keep=keep, wait=True)
            written = _write(job, share, executor, listener)
    else:
        check_apart(checkpoint.folder if isinstance(checkpoint, Checkpoint) else Path(checkpoint), out)
        job = WholeCheckpoint.of(checkpoint, out, *decided, others=others, keep=keep)
        with shared_folder(out):
            written = _write(job, share, executor, listener)
    if isinstance(written, Manifest) or FinishedManifest(out).state != before:  # another share may have finished it
        clear_finished(out)
    return written


def _write(
    job: WholeCheckpoint, share: Share, executor: Executor, listener: Listener | None
) -> Manifest | ShareWritten:
    """Write a share; finish where no file is missing."""
    units = share.of(job.units, job.plan)
    with own_share(job.out, str(share), [unit.file for unit in units]):
        job.write_units(units, executor, listener, f"{JOURNAL}-{share}")
        with finishing(job.out):
            missing = len(job.missing())
            if missing:
                return ShareWritten(share, len(units), missing)
            remove_partials(job.out)
            return job.write(executor, listener)


@dataclass(frozen=True, slots=True)
class ShareWritten:
    """Result of a share where others are not written yet.

    Attributes:
        files: how many the share has.
        missing: how many files of others are not there.
    """

    share: Share
    files: int
    missing: int
