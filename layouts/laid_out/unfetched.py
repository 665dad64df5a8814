"""Shards of a finished run, fetched again only if needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from preshuffle.layouts.checkpoint import MappedShards, RemoteFile, forget_fetched, read_regular, same_identity
from preshuffle.layouts.laid_out.files.checked_file import check_copied, check_header
from preshuffle.layouts.laid_out.files.errors import LaidOutError, StaleError
from preshuffle.layouts.laid_out.files.finished_file import read_finished
from preshuffle.layouts.laid_out.files.manifest import MANIFEST, SOURCE, WORK, FileRecord, Manifest
from preshuffle.layouts.laid_out.files.tensor_writer import appearing, synchronise_folder, writing
from preshuffle.layouts.laid_out.runs.executor import RunContext
from preshuffle.layouts.laid_out.runs.other_tensors import HEADER
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.layouts.laid_out.runs.sources import Sources
from preshuffle.layouts.laid_out.runs.unit_files import Unit, UnitHead, sources_of

Refetch = Callable[[Collection[str]], None]
"""Fetches shards by their names."""
_BEFORE: Final = "before"
"""Folder below that of unfinished work: the manifest of the run whose files are being replaced."""


def finished_manifest(out: Path) -> Manifest | None:
    """Return a folder's valid manifest, or that of a run being updated."""
    for folder in (out, out / WORK / _BEFORE):  # in the order in which another share moves it
        try:
            return Manifest.read(folder)
        except LaidOutError:
            if (folder / MANIFEST).is_file():  # damaged
                return None
    return None


def unchanged_shards(manifest: Manifest, files: Mapping[str, RemoteFile]) -> set[str]:
    """Return the shards whose size and identity are as recorded.

    None of them where it says nothing of one: then all must be read to know.

    Args:
        manifest: of the finished run.
        files: as they are listed now.
    """
    same: set[str] = set()
    for source in manifest.sources:
        file = files.get(source.name)
        equal = same_identity(file.identity, source.identity) if file is not None else False
        if equal is None:
            return set()
        if equal and file is not None and file.size == source.size:
            same.add(source.name)
    return same


@dataclass(slots=True)
class UnfetchedShards:
    """Shards of which only header and digest are there.

    As the finished run recorded them. Where a shard is expected lies a file of its size with its header and nothing
    behind: whatever is read of it is fetched before.

    Attributes:
        out: the folder of the finished run.
        folder: where fetched shards are.
        manifest: of the finished run.
        names: of the shards that were not fetched.
        refetch: fetches some of them.
    """

    out: Path
    folder: Path
    manifest: Manifest
    names: set[str]
    refetch: Refetch
    _files: dict[str, FileRecord] = field(init=False)

    def __post_init__(self) -> None:
        """Index the finished run's files by name."""
        self._files = {one.file: one for one in self.manifest.files()}

    def digests(self) -> dict[str, str]:
        """Return the digests of the shards that were not fetched."""
        return {one.name: one.digest for one in self.manifest.sources if one.name in self.names}

    def put_headers(self, journal: Path) -> None:
        """Put files with headers alone where the shards are expected.

        Nobody else may fetch. Files that other shares have put stay, since those may have opened them.

        Args:
            journal: of what was fetched; loses their names first.

        Raises:
            LaidOutError: a header was changed since it was copied, or a file cannot be written.
        """
        copied = {one.file: one for one in self.manifest.copied}
        forget_fetched(journal, self.names)
        for source in self.manifest.sources:
            if source.name in self.names:
                name = f"{SOURCE}/{source.name}{HEADER}"
                check_copied(self.out, copied[name])
                put_header(self.folder / source.name, read_regular(self.out / name), source.size)

    def finished(self, context: RunContext, units: Iterable[Unit]) -> dict[str, FileRecord]:
        """Return records of existing files made of unfetched shards.

        Raises:
            StaleError: one was made by another decision.
            LaidOutError: one is damaged.
        """
        known = self.digests()
        records: dict[str, FileRecord] = {}
        for unit in units:
            names = [path.name for path in sources_of(unit, context.plan)]
            if not set(names) <= self.names:
                continue
            head = UnitHead.of(unit, {name: known[name] for name in names}, context.plan.checkpoint.registry.digest)
            record = read_finished(self.out / unit.file, head.key)
            if record is not None:
                records[unit.file] = record
                context.progress.resume(unit.file, sum(one.nbytes for one in record.tensors))
        return records

    def fetch_for(self, plan: RunPlan, digests: Sources, units: Iterable[Unit], shards: MappedShards) -> None:
        """Fetch the shards that units read.

        Args:
            plan: of the run.
            digests: of its shards.
            units: to be written.
            shards: forget what was not fetched.

        Raises:
            CheckpointError: a shard cannot be fetched, or is not what was laid out.
        """
        needed = {path for unit in units for path in sources_of(unit, plan) if path.name in self.names}
        if needed:
            self.refetch({path.name for path in needed})
            self.names -= {path.name for path in needed}
            for path in needed:
                shards.forget(path)
                digests.forget(path)

    def outdated(self, plan: RunPlan, digests: Sources, units: Iterable[Unit]) -> list[Unit]:
        """Return units whose files are there, of shards replaced since.

        Those of shards that nobody has hashed yet are among them.
        """
        return [unit for unit in units if self._is_outdated(plan, digests.known, unit)]

    def remove_outdated(self, plan: RunPlan, digests: Sources, units: Iterable[Unit]) -> None:
        """Remove units' outdated files; nobody may finish meanwhile.

        The manifest is set aside before a file is removed: what is not whole does not look so.

        Raises:
            LaidOutError: one was changed since it was written, or cannot be removed.
        """
        for unit in units:
            if self._is_outdated(plan, digests.digest, unit):
                check_header(self.out / unit.file, self._files[unit.file])
                self._set_manifest_aside()
                with writing(self.out / unit.file):
                    (self.out / unit.file).unlink()

    def _is_outdated(self, plan: RunPlan, digest: Callable[[Path], str | None], unit: Unit) -> bool:
        sources, record = sources_of(unit, plan), self._files.get(unit.file)
        if record is None or {path.name for path in sources} <= self.names or not (self.out / unit.file).exists():
            return False
        used = {path.name: found for path in sources if (found := digest(path)) is not None}
        if len(used) == len(sources) and UnitHead.of(unit, used, plan.checkpoint.registry.digest).key == record.key:
            return False
        try:
            read_finished(self.out / unit.file, record.key)
        except StaleError:  # it was written anew
            return False
        return True

    def _set_manifest_aside(self) -> None:
        if not (self.out / MANIFEST).is_file():
            return
        aside = self.out / WORK / _BEFORE
        with writing(self.out / MANIFEST):
            aside.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process did, where the file system has no locks
                os.rename(self.out / MANIFEST, aside / MANIFEST)
            synchronise_folder(self.out)


def put_header(path: Path, header: bytes, size: int) -> None:
    """Put a file of a shard's header and size, unless there.

    Raises:
        LaidOutError: it cannot be written.
    """
    with writing(path):
        if path.is_file() and path.stat().st_size == size:
            with path.open("rb") as there:
                if there.read(len(header)) == header:
                    return
        with appearing(path) as stream:
            stream.write(header)
            stream.truncate(size)
