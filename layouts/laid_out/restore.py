"""Restoration of the checkpoint from laid-out files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from preshuffle.layouts.checkpoint import CheckpointError, MappedShards, ShardFile, read_regular
from preshuffle.layouts.laid_out.files.checked_file import check_copied, check_header
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.folder_lock import remove_work
from preshuffle.layouts.laid_out.files.manifest import SOURCE, FileRecord, Manifest, TensorRecord
from preshuffle.layouts.laid_out.files.progress import CancelledRun, Listener, Progress
from preshuffle.layouts.laid_out.files.restore_journal import RestoreJournal, journal_of
from preshuffle.layouts.laid_out.files.shard_targets import ShardTargets, partial_of
from preshuffle.layouts.laid_out.files.tensor_writer import synchronise_folder, write_whole, writing
from preshuffle.layouts.laid_out.plain_layer import restore_rank_layer, unrestorable
from preshuffle.layouts.laid_out.runs.other_tensors import HEADER
from preshuffle.layouts.laid_out.runs.output_folder import check_apart, check_foreign, check_room, restoring
from preshuffle.layouts.stamps import digest_file
from preshuffle.registry import PreshuffleError

_CONFIG = "config.json"
_NAMED = 8
_BLOCK = 16 << 20


def restore_checkpoint(
    out: Path | str, checkpoint: Path | str, *, workers: int = 1, listener: Listener | None = None
) -> Manifest:
    """Restore the checkpoint that was laid out.

    Its shards have the same names and bytes; each is compared with the digest that it had before it appears. Killed,
    the same call resumes; where all of it is there already, it is compared.

    Args:
        out: the laid-out checkpoint.
        checkpoint: a new folder.
        workers: threads.
        listener: called with every event.

    Raises:
        LaidOutError: something was left out or lost, a file is damaged, there is no room, or the folder holds other
            shards already.
    """
    out, folder = Path(out), Path(checkpoint)
    manifest = Manifest.read(out)
    if folder.resolve().is_relative_to(out.resolve()):
        raise LaidOutError(f"{folder}: is the laid-out checkpoint, or inside it; choose another folder")
    check_apart(out, folder)
    if not manifest.complete:
        raise LaidOutError(f"{out}: was made without the tensors that are no experts': they cannot be restored")
    for small in manifest.copied:
        check_copied(out, small)
    check_restorable(out, manifest)
    headers = source_headers(out, manifest)
    with writing(folder):
        there = [header.path.name for header in headers if (folder / header.path.name).exists()]
        resumes = journal_of(folder).is_file()
        if there and not resumes and not _is_restored(out, folder, manifest):
            raise LaidOutError(f"{folder}: holds {there[0]} already; choose another folder")
    check_foreign(folder, [path for _, path in _small_files(out, manifest)])
    with restoring(folder):
        if there and not resumes:  # a run was killed when all was done but its own traces
            return manifest
        restoration = _Restoration(out, folder, manifest, headers, RestoreJournal(folder, manifest.checksum), workers)
        progress = Progress(sum(header.size for header in headers), listener)
        progress.tell("started")
        try:
            restoration.run(progress)
        except PreshuffleError:
            if not restoration.published():
                remove_work(folder)
            raise
        progress.tell("finished")
    return manifest


@dataclass(frozen=True, slots=True)
class _Restoration:
    """One run that restores a checkpoint."""

    out: Path
    folder: Path
    manifest: Manifest
    headers: list[ShardFile]
    journal: RestoreJournal
    workers: int

    def run(self, progress: Progress) -> None:
        """Write what is not written yet; publish the shards.

        Raises:
            LaidOutError: see ``restore_checkpoint``; no unpublished file is left then.
        """
        published = self.published()
        unpublished = [one for one in self.headers if one.path.name not in published]
        if not self.journal.resumed:
            check_room(self.folder, sum(one.size for one in unpublished))
        targets = ShardTargets(self.folder, unpublished, reuse=self.journal.resumed)
        if targets.created and published:  # what lay beside the published shards is gone: all are written again
            targets = ShardTargets(self.folder, self.headers)
        try:
            if targets.created:
                self.journal.forget()
            resumed = bool(self.journal.done)
            self._write(targets, progress)
            targets.synchronise()
            wrong = _wrong_shard(self.manifest, self.folder)
            # the machine may have stopped before all bytes were on the disk
            if wrong is not None and resumed and not published:
                self.journal.forget()
                self._write(targets, progress)
                targets.synchronise()
                wrong = _wrong_shard(self.manifest, self.folder)
            if wrong is not None:
                raise LaidOutError(
                    f"{wrong}: what was restored differs from the checkpoint's; nothing was written. "
                    "Verify the laid-out checkpoint (--full): a file of it is damaged"
                )
        except PreshuffleError:
            targets.abandon()
            raise
        self._publish(targets)

    def published(self) -> set[str]:
        """Return the shards that have their names."""
        return {one.path.name for one in self.headers if (self.folder / one.path.name).exists()}

    def _publish(self, targets: ShardTargets) -> None:
        """Give the shards their names, and then the small files, without which they are no checkpoint.

        Where that fails in the middle, what is there stays as a killed run leaves it: the same call resumes.
        """
        try:
            targets.publish()
            synchronise_folder(self.folder)
        except PreshuffleError:
            if not self.published():
                targets.abandon()
            raise
        _copy_small_files(self.out, self.manifest, self.folder)
        synchronise_folder(self.folder)

    def _write(self, targets: ShardTargets, progress: Progress) -> None:
        shards, ranks = MappedShards(), self.manifest.ranks
        # behind the ranks: what was kept is more exact than what they give
        copied = (*self.manifest.others, *self.manifest.kept)
        missing = self.journal.missing(one.file for one in (*ranks, *copied))
        if missing & {one.file for one in ranks}:  # and so once more where ranks are written
            missing |= {one.file for one in copied}
        for one in (*ranks, *copied):
            if one.file not in missing:
                progress.resume(one.file, sum(tensor.nbytes for tensor in one.tensors))
        rank_tasks = {
            one.file: partial(restore_rank_layer, self.out, self.manifest, one, shards, targets, progress)
            for one in ranks
        }
        copies = {one.file: partial(copy_back, self.out, one, one.tensors, shards, targets, progress) for one in copied}
        for tasks in (rank_tasks, copies):
            self._run({file: task for file, task in tasks.items() if file in missing}, shards, progress)

    def _run(self, tasks: Mapping[str, Callable[[], None]], shards: MappedShards, progress: Progress) -> None:
        def noted(file: str, task: Callable[[], None]) -> None:
            task()
            self.journal.add(file)
            shards.forget(self.out / file)  # a mapping takes a descriptor

        run_all((partial(noted, file, task) for file, task in tasks.items()), self.workers, progress)


def check_restorable(out: Path, manifest: Manifest) -> None:
    """Check that every tensor of experts can be restored.

    Raises:
        LaidOutError: names those that cannot.
    """
    lost = unrestorable(manifest)
    if lost:
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        raise LaidOutError(
            f"{out}: these cannot be restored, since laying out lost what they were: {', '.join(lost[:_NAMED])}{more}. "
            "Apply with keep='all' (--keep all) keeps them beside the laid-out ones"
        )


def source_headers(out: Path, manifest: Manifest) -> list[ShardFile]:
    """Return the headers of the checkpoint's shards.

    Raises:
        LaidOutError: one is missing or damaged.
    """
    headers: list[ShardFile] = []
    for source in manifest.sources:
        path = out / SOURCE / f"{source.name}{HEADER}"
        try:
            headers.append(ShardFile.parse(Path(source.name), read_regular(path), source.size))
        except (OSError, CheckpointError) as error:
            raise LaidOutError(f"{path}: cannot be read: {error}") from None
    return headers


def run_all(tasks: Iterable[Callable[[], None]], workers: int, progress: Progress) -> None:
    """Run tasks on threads; raise the first error, after all have stopped."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            progress.stop()
            for future in futures:
                future.cancel()
            wait(futures)
            if isinstance(error, CancelledRun):
                errors = (one.exception() for one in futures if one.done() and not one.cancelled())
                raise next((one for one in errors if one and not isinstance(one, CancelledRun)), error) from None
            raise
        finally:
            torch.set_num_threads(threads)


def copy_back(
    out: Path,
    record: FileRecord,
    tensors: Iterable[TensorRecord],
    shards: MappedShards,
    targets: ShardTargets,
    progress: Progress,
) -> None:
    """Copy tensors of a file to the checkpoint's places.

    Raises:
        LaidOutError: the file is not the manifest's.
    """
    path = out / record.file
    check_header(path, record)
    for tensor in tensors:
        for first in range(0, tensor.nbytes, _BLOCK):
            past = min(first + _BLOCK, tensor.nbytes)
            with targets.writing() as writing_to, shards.reading() as reading:
                data = reading.bytes(path, tensor.begin + first, tensor.begin + past)
                writing_to.bytes(tensor.name)[first:past] = data
            progress.advance(past - first)


def _wrong_shard(manifest: Manifest, folder: Path) -> str | None:
    """Return a shard whose bytes are not the checkpoint's."""
    for source in manifest.sources:
        path = folder / source.name
        if digest_file(path if path.exists() else partial_of(path), (0, source.size)) != source.digest:
            return source.name
    return None


def _is_restored(out: Path, folder: Path, manifest: Manifest) -> bool:
    """Return whether a folder holds every file of the checkpoint, as it was."""
    sizes = {folder / source.name: source.size for source in manifest.sources}
    small = {folder / name: path for name, path in _small_files(out, manifest)}
    return (
        all(path.is_file() for path in (*sizes, *small))
        and all(path.stat().st_size == size for path, size in sizes.items())
        and all(path.read_bytes() == read_regular(wanted) for path, wanted in small.items())
        and _wrong_shard(manifest, folder) is None
    )


def _copy_small_files(out: Path, manifest: Manifest, folder: Path) -> None:
    # the configuration last: without it nothing reads the rest
    for name, path in sorted(_small_files(out, manifest), key=lambda file: file[0] == _CONFIG):
        write_whole(folder / name, read_regular(path))


def _small_files(out: Path, manifest: Manifest) -> Iterator[tuple[str, Path]]:
    for copied in manifest.copied:
        if not copied.file.endswith(HEADER):
            yield Path(copied.file).name, out / copied.file
