"""Output folder of a run: its users, killed runs, room."""

from __future__ import annotations

import fcntl
import filecmp
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from preshuffle.layouts.laid_out.files.errors import LaidOutError, StaleError
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.folder_lock import locked, remove_work
from preshuffle.layouts.laid_out.files.manifest import MANIFEST, SOURCE, WORK, LayerPlan, Manifest
from preshuffle.layouts.laid_out.files.tensor_writer import PARTIAL, file_of_partial, writing
from preshuffle.layouts.laid_out.runs.other_tensors import room_for
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.layouts.laid_out.runs.sources import JOURNAL

_LOCK: Final = "lock"
_OWN_INDEX: Final = re.compile(r"rank-tp\d+-ep\d+\.safetensors\.index\.json")
_ELSEWHERE: Final = "Choose another folder, or remove this one"
FETCHED: Final = "checkpoint"
"""Folder below that of unfinished work: a fetched checkpoint."""


@contextmanager
def exclusive_folder(out: Path) -> Iterator[None]:
    """Use an output folder alone; remove what killed runs left half-written.

    Where it is finished at the end, what only unfinished work needs goes.

    Args:
        out: created if needed.

    Raises:
        LaidOutError: another process uses it, or it cannot be made.
    """
    with locked(out, _LOCK, fcntl.LOCK_EX) as free:
        if not free:
            raise LaidOutError(f"{out}: another process writes it")
        remove_partials(out)
        try:
            yield
        except Exception:  # an interrupted run resumes
            _clear(out, failed=True)
            raise
        _clear(out, failed=False)


@contextmanager
def shared_folder(out: Path) -> Iterator[None]:
    """Use an output folder together with the processes of other shares.

    Args:
        out: created if needed.

    Raises:
        LaidOutError: another process uses the folder alone, or it cannot be made.
    """
    try:
        with ExitStack() as stack:
            free = stack.enter_context(locked(out, _LOCK, fcntl.LOCK_SH))
            if not free and (out / MANIFEST).is_file():  # the last of those that finished it is leaving
                free = stack.enter_context(locked(out, _LOCK, fcntl.LOCK_SH, wait=True))
            if not free:
                raise LaidOutError(f"{out}: another process writes all of it")
            yield
    except Exception:  # an interrupted run resumes
        clear_finished(out, failed=True)
        raise


@contextmanager
def own_share(out: Path, share: str, files: Iterable[str]) -> Iterator[None]:
    """Write a share alone; remove what a killed process left of it.

    Args:
        out: the folder, which is in use.
        share: name of the share.
        files: that belong to it.

    Raises:
        LaidOutError: another process works on it.
    """
    with locked(out, f"{_LOCK}-{share}", fcntl.LOCK_EX) as free:
        if not free:
            raise LaidOutError(f"{out}: another process works on share {share}")
        own = set(files)
        for path in out.glob(f"*{PARTIAL}"):
            if file_of_partial(path.name) in own:
                path.unlink(missing_ok=True)
        yield


@contextmanager
def finishing(out: Path) -> Iterator[None]:
    """Finish an output folder that shares have written, alone.

    Whoever removes files that are outdated does that alone, too: what is finished has all its files.
    """
    with locked(out, f"{_LOCK}-finish", fcntl.LOCK_EX, wait=True):
        yield


def _clear(out: Path, *, failed: bool) -> None:
    if not (out / MANIFEST).is_file():
        return
    if failed and (out / WORK / FETCHED).is_dir():
        for path in (out / WORK).glob(f"{JOURNAL}*.json"):
            path.unlink(missing_ok=True)
    else:
        remove_work(out)


def clear_finished(out: Path, *, failed: bool = False) -> None:
    """Remove unfinished work's folder where a run is finished and unused.

    Args:
        out: the folder.
        failed: whether this process failed: then what it fetched stays, and its journals go.
    """
    if (out / MANIFEST).is_file():
        with locked(out, _LOCK, fcntl.LOCK_EX) as alone:
            if alone:
                _clear(out, failed=failed)


def remove_partials(out: Path) -> None:
    """Remove what killed processes left half-written; nobody may write there.

    Files of that ending which are not ours stay, and so do those of unfinished work, which goes as a whole.
    """
    for folder in (out, out / SOURCE):
        for path in folder.glob(f"*{PARTIAL}"):
            if file_of_partial(path.name) is None:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_own_folder(out: Path) -> bool:
    """Return whether a folder holds a run, finished or not."""
    return (out / WORK).is_dir() or (out / MANIFEST).is_file()


def check_output(finished: FinishedManifest, plan: RunPlan, copied: Iterable[Path]) -> None:
    """Check that a run may write to a folder.

    It is the run's own, or holds nothing in the way.

    Args:
        finished: of the folder.
        plan: what the run would write.
        copied: small files that will be copied to it.

    Raises:
        StaleError: it holds another checkpoint or decision, finished (says what differs), or another file of a copied
            one's name.
        LaidOutError: the folder cannot be read.
    """
    try:
        manifest = finished.read()
    except LaidOutError:  # unfinished, or damaged: then it is written anew
        check_foreign(finished.out, copied)
    else:
        _check_finished(finished.out, manifest, plan)


def _check_finished(out: Path, manifest: Manifest, plan: RunPlan) -> None:
    """Check that a finished folder is what a run would write."""
    digests = {one.name: one.digest for one in manifest.sources}
    paths = sorted(set(plan.checkpoint.shards.values()))
    if {path.name for path in paths} != set(digests):
        raise StaleError(f"{out}: is finished, by another run of another checkpoint: its shards differ. {_ELSEWHERE}")
    held = {layer: {path.name: digests[path.name] for path in plan.files_of(layer)} for layer in plan.layers}
    keys = {unit.file: unit.key(held[unit.layer]) for unit in plan.units()}
    if keys != {one.file: one.key for one in manifest.ranks}:
        old, new = _facts(manifest.plans), _facts(plan.plans)
        found = [f"{name} ({old[name]}, not {new[name]})" for name in old if old[name] != new[name]]
        differences = ", ".join(found) or "what is decided for some layers"
        raise StaleError(
            f"{out}: is finished, by another run or another decision that differs in: {differences}. {_ELSEWHERE}"
        )


def _facts(plans: Iterable[LayerPlan]) -> Mapping[str, Any]:
    """Return what was decided, by words that messages can name."""
    listed = list(plans)
    query = listed[0].query
    facts = {name: getattr(query, name) for name in ("arch", "engine", "tp", "ep", "activation_dtype")}
    layers = sorted(layer for plan in listed for layer in plan.layers)
    return {**facts, "recipe": ", ".join(sorted({plan.recipe for plan in listed})), "layers": len(layers)}


def check_apart(source: Path, out: Path) -> None:
    """Check that a run does not remove what it reads.

    Args:
        source: the folder to read.
        out: the folder to write; what lies in its own folders is replaced or removed.

    Raises:
        LaidOutError: the source is there.
    """
    for own in (out / WORK, out / SOURCE):
        if source.resolve().is_relative_to(own.resolve()):
            raise LaidOutError(f"{source}: lies in {own}, which this run replaces; move it, or choose another folder")


def check_names(out: Path, shards: Iterable[Path], copied: Iterable[Path], folder: Path) -> None:
    """Check that a checkpoint's names leave room for those of the output.

    Args:
        out: the folder to write, for messages.
        shards: the checkpoint's.
        copied: its small files, which keep their names.
        folder: the checkpoint's.

    Raises:
        LaidOutError: a shard is in a folder below, or a file has a name of the output's own, in whatever case.
    """
    below = next((path for path in sorted(shards) if path.parent != folder), None)
    if below is not None:
        raise LaidOutError(f"{below}: is in a folder below {folder}; put all shards into one folder")
    for path in copied:
        name = path.name.casefold()  # not every file system keeps cases apart
        if name in (WORK, SOURCE, MANIFEST) or _OWN_INDEX.fullmatch(name):
            raise LaidOutError(f"{path}: has a name that {out} needs for its own; rename it, or leave it out")


def check_foreign(out: Path, copied: Iterable[Path]) -> None:
    """Check that no small file of somebody else would be overwritten.

    Args:
        out: the folder; one that holds an earlier run may be written to.
        copied: files that will be copied to it.

    Raises:
        StaleError: the folder holds another file of that name.
        LaidOutError: the folder cannot be read.
    """
    with writing(out):
        for path in () if is_own_folder(out) else copied:
            target = out / path.name
            if target.is_dir() or (target.is_file() and not filecmp.cmp(path, target, shallow=False)):
                raise StaleError(f"{out} holds another {path.name}; choose another folder")


@contextmanager
def fetching(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Fetch a checkpoint into an output folder, alone.

    Args:
        out: the folder.
        wait: until another process that fetches has ended.

    Raises:
        LaidOutError: another process does, or the folder cannot be made.
    """
    with locked(out, f"{_LOCK}-fetch", fcntl.LOCK_EX, wait=wait) as free:
        if not free:
            raise LaidOutError(f"{out}: another process fetches a checkpoint to it")
        yield


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Restore a checkpoint into a folder, alone.

    The folder of unfinished work goes at the end.

    Raises:
        LaidOutError: another process does, or the folder cannot be made.
    """
    with locked(folder, _LOCK, fcntl.LOCK_EX) as free:
        if not free:
            raise LaidOutError(f"{folder}: another process restores a checkpoint to it")
        remove_partials(folder)
        yield
        remove_work(folder)


def check_room(out: Path, needed: int) -> None:
    """Check that what is missing fits the file system.

    Raises:
        LaidOutError: it does not; says how much is missing.
    """
    free = room_for(out)
    if needed > free:
        raise LaidOutError(f"{out}: {needed:,} bytes are needed, and {free:,} are free; nothing was written")


def check_expected(out: Path, expected: Collection[str]) -> None:
    """Check that a folder holds no safetensors files but some.

    Raises:
        StaleError: it does.
    """
    strange = [path.name for path in out.glob("*.safetensors") if path.name not in expected]
    if strange:
        raise StaleError(f"{out} holds files of another run, such as {min(strange)}; choose another folder")
