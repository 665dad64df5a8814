"""Checkpoints of other file systems: fetched, or compared without reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from preshuffle.layouts.checkpoint import (
    CheckpointError,
    Identity,
    MappedShards,
    RemoteFolder,
    check_unchanged,
    fetch_checkpoint,
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
from preshuffle.layouts.laid_out.runs.output_folder import fetching, is_own_folder
from preshuffle.registry.base.frozen import FrozenDict

_FETCHED: Final = "checkpoint"
"""Folder for the files; it goes when the run is finished."""
_JOURNAL: Final = "fetched.json"
Difference = tuple[str, str | None, str]
"""File, tensor, and what is wrong."""


@dataclass(frozen=True, slots=True)
class FetchedCheckpoint:
    """Checkpoint that was fetched.

    Attributes:
        folder: where its files are.
        identities: what its file system says of each file's bytes.
    """

    folder: Path
    identities: Mapping[str, Identity]


def fetch_for_run(address: str, out: Path, listener: Listener | None, *, wait: bool = False) -> FetchedCheckpoint:
    """Fetch a checkpoint into the output's folder for unfinished work.

    Args:
        address: the checkpoint's.
        out: the output's folder.
        listener: called with every event.
        wait: until another process that fetches there has ended, and take what it fetched.

    Raises:
        CheckpointError: it cannot be fetched, or changed meanwhile.
        LaidOutError: another process fetches there, or the folder cannot be made.
    """
    remote = RemoteFolder.open(address)
    files = wanted_files(remote)
    there = [name for name in files if (out / name).exists() and not name.endswith(".safetensors")]
    if there and not is_own_folder(out):
        raise StaleError(f"{out} holds another {there[0]}; choose another folder")
    with fetching(out, wait=wait):
        progress = Progress(sum(file.size for file in files.values()), listener, "fetching")
        with writing(out):
            identities = fetch_checkpoint(remote, out / WORK / _FETCHED, out / WORK / _JOURNAL, progress.advance)
        check_unchanged(address, remote)
        progress.tell("fetched")
    return FetchedCheckpoint(out / WORK / _FETCHED, identities)


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
