"""Checkpoints of other file systems: fetched, or compared without reading."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from preshuffle.layouts.checkpoint import (
    CheckpointError,
    Identity,
    MappedShards,
    RemoteFolder,
    check_unchanged,
    fetch_checkpoint,
    fetched_names,
    header_size,
    identity_of_link,
    is_remote,
    read_regular,
    same_identity,
    wanted_files,
)
from preshuffle.layouts.laid_out.files.errors import StaleError
from preshuffle.layouts.laid_out.files.manifest import SOURCE, WORK, Manifest, SourceRecord
from preshuffle.layouts.laid_out.files.progress import Listener, Progress
from preshuffle.layouts.laid_out.files.tensor_writer import writing
from preshuffle.layouts.laid_out.runs.other_tensors import HEADER
from preshuffle.layouts.laid_out.runs.output_folder import FETCHED, fetching, is_own_folder
from preshuffle.layouts.laid_out.unfetched import UnfetchedShards, finished_manifest, unchanged_shards
from preshuffle.registry.base.frozen import FrozenDict

_JOURNAL: Final = "fetched.json"
Difference = tuple[str, str | None, str]
"""File, tensor, and what is wrong."""


@dataclass(frozen=True, slots=True)
class FetchedCheckpoint:
    """Checkpoint that was fetched.

    Attributes:
        folder: where its files are.
        identities: what its file system says of each file's bytes.
        unfetched: shards that were left where they are, since a finished run has read them.
    """

    folder: Path
    identities: Mapping[str, Identity]
    unfetched: UnfetchedShards | None = None


def check_small_files(address: str, out: Path) -> None:
    """Check that no small file of somebody else would be overwritten.

    To be called before the folder is locked, which makes it a run's.

    Raises:
        CheckpointError: the address cannot be listed.
        StaleError: the folder holds a file of that name, and no run.
    """
    if is_own_folder(out):
        return
    for name in wanted_files(RemoteFolder.open(address)):
        if (out / name).exists() and not name.endswith(".safetensors"):
            raise StaleError(f"{out} holds another {name}; choose another folder")


def fetch_for_run(address: str, out: Path, listener: Listener | None, *, wait: bool = False) -> FetchedCheckpoint:
    """Fetch a checkpoint into the output's folder for unfinished work.

    Where a run has finished in that folder, only those shards need to come whose identity differs from what its
    manifest says.

    Args:
        address: the checkpoint's.
        out: the output's folder, which is in use.
        listener: called with every event.
        wait: until another process that fetches there has ended, and take what it fetched.

    Raises:
        CheckpointError: it cannot be fetched, or changed meanwhile.
        LaidOutError: another process fetches there, or the folder cannot be made.
    """
    folder, journal = out / WORK / FETCHED, out / WORK / _JOURNAL
    with fetching(out, wait=wait):
        remote = RemoteFolder.open(address)
        files, manifest = wanted_files(remote), finished_manifest(out)
        same = unchanged_shards(manifest, files) - fetched_names(folder, journal) if manifest is not None else set()
        progress = Progress(sum(file.size for name, file in files.items() if name not in same), listener, "fetching")
        with writing(out):
            identities = fetch_checkpoint(remote, folder, journal, progress.advance, same)
        unfetched = None
        if manifest is not None and same:
            refetch = partial(_refetch, address, out, listener)
            unfetched = UnfetchedShards(out, folder, manifest, same, refetch)
            unfetched.put_headers(journal)
        check_unchanged(address, remote)
        progress.tell("fetched")
    return FetchedCheckpoint(folder, identities, unfetched)


def _refetch(address: str, out: Path, listener: Listener | None, names: Collection[str]) -> None:
    """Fetch shards that were left out."""
    remote = RemoteFolder.open(address)
    others = set(wanted_files(remote)) - set(names)
    progress = Progress(sum(remote.files[name].size for name in names if name in remote.files), listener, "fetching")
    with fetching(out, wait=True):
        with writing(out):
            fetch_checkpoint(remote, out / WORK / FETCHED, out / WORK / _JOURNAL, progress.advance, others)
        check_unchanged(address, remote)
        progress.tell("fetched")


def identified(records: tuple[SourceRecord, ...], identities: Mapping[str, Identity]) -> tuple[SourceRecord, ...]:
    """Return records of shards with what their file system says of them."""
    return tuple(
        one.model_copy(update={"identity": FrozenDict(identities[one.name])}) if identities.get(one.name) else one
        for one in records
    )


def changed_sources(out: Path, manifest: Manifest, checkpoint: Path | str) -> Iterator[Difference]:
    """Yield a checkpoint's shards that are not those which were laid out.

    Sizes are compared, and what both sides state of the bytes: a hash or an ETag, the strongest that both have. Where
    there is none, the headers are. No tensor is read.

    Args:
        out: the laid-out checkpoint.
        manifest: its manifest.
        checkpoint: a folder, or its address.

    Raises:
        CheckpointError: the address cannot be listed.
    """
    if isinstance(checkpoint, str) and is_remote(checkpoint):
        yield from _changed_remote(out, manifest, RemoteFolder.open(checkpoint))
        return
    shards = MappedShards()
    for source in manifest.sources:
        path = Path(checkpoint) / source.name
        try:
            header = shards.header(path)
            same = header.size == source.size and header.head == _recorded_header(out, source)
        except (CheckpointError, OSError) as error:
            yield source.name, None, str(error)
            continue
        if not same:
            yield source.name, None, f"{path}: not the file that was laid out: its size or header differs"
        elif same_identity(identity_of_link(path), source.identity) is False:
            yield source.name, None, f"{path}: not the file that was laid out: the Hub's cache says another hash"


def _changed_remote(out: Path, manifest: Manifest, remote: RemoteFolder) -> Iterator[Difference]:
    for source in manifest.sources:
        file = remote.files.get(source.name)
        if file is None:
            yield source.name, None, f"{remote.address}: {source.name} is not there"
            continue
        same = same_identity(file.identity, source.identity)
        if file.size != source.size or same is False:
            what = "size" if file.size != source.size else "hash or ETag"
            yield source.name, None, f"{file.path}: not the file that was laid out: its {what} differs"
        elif same is None:
            head = _recorded_header(out, source)
            header_size(file.path, head[:8])
            if remote.read(file, 0, min(len(head), file.size)) != head:
                yield source.name, None, f"{file.path}: not the file that was laid out: its header differs"


def _recorded_header(out: Path, source: SourceRecord) -> bytes:
    return read_regular(out / SOURCE / f"{source.name}{HEADER}")
