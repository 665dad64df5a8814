"""Restoration of the checkpoint from laid-out files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import torch

from preshuffle.layouts.checkpoint import CheckpointError, MappedShards, ShardFile, read_regular
from preshuffle.layouts.laid_out.files.checked_file import check_copied, check_header
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import SOURCE, FileRecord, Manifest, TensorRecord
from preshuffle.layouts.laid_out.files.progress import CancelledRun, Listener, Progress
from preshuffle.layouts.laid_out.files.shard_targets import ShardTargets, partial_of
from preshuffle.layouts.laid_out.files.tensor_writer import synchronise_folder, write_whole, writing
from preshuffle.layouts.laid_out.plain_layer import restore_rank_layer, unrestorable
from preshuffle.layouts.laid_out.runs.other_tensors import HEADER
from preshuffle.layouts.stamps import digest_file

_NAMED = 8
_BLOCK = 16 << 20


def restore_checkpoint(
    out: Path | str, checkpoint: Path | str, *, workers: int = 1, listener: Listener | None = None
) -> Manifest:
    """Restore the checkpoint that was laid out.

    Its shards have the same names and bytes; each is compared with the digest that it had before it appears.

    Args:
        out: the laid-out checkpoint.
        checkpoint: a new folder.
        workers: threads.
        listener: called with every event.

    Raises:
        LaidOutError: something was left out or lost, a file is damaged, or the folder holds shards already.
    """
    out, folder = Path(out), Path(checkpoint)
    manifest = Manifest.read(out)
    if not manifest.complete:
        raise LaidOutError(f"{out}: was made without the tensors that are no experts': they cannot be restored")
    for small in manifest.copied:
        check_copied(out, small)
    check_restorable(out, manifest)
    headers = source_headers(out, manifest)
    there = [header.path.name for header in headers if (folder / header.path.name).exists()]
    if there:
        raise LaidOutError(f"{folder}: holds {there[0]} already; choose another folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(sum(header.size for header in headers), listener)
    progress.tell("started")
    targets = ShardTargets(folder, headers)
    try:
        shards = MappedShards()
        run_all((partial(restore_rank_layer, out, manifest, one, shards, targets, progress) for one in manifest.ranks),
                workers, progress)  # fmt: skip
        # behind the ranks: what was kept is more exact than what they give
        copied = (*manifest.others, *manifest.kept)
        run_all(
            (partial(copy_back, out, one, one.tensors, shards, targets, progress) for one in copied), workers, progress
        )
        targets.synchronise()
        _check_digests(manifest, folder)
        _copy_small_files(out, manifest, folder)
        targets.publish()
    finally:
        targets.abandon()
    synchronise_folder(folder)
    progress.tell("finished")
    return manifest


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


def _check_digests(manifest: Manifest, folder: Path) -> None:
    for source in manifest.sources:
        if digest_file(partial_of(folder / source.name), (0, source.size)) != source.digest:
            raise LaidOutError(
                f"{source.name}: what was restored differs from the checkpoint's; nothing was written. "
                "Verify the laid-out checkpoint (--full): a file of it is damaged"
            )


def _copy_small_files(out: Path, manifest: Manifest, folder: Path) -> None:
    for name, path in _small_files(out, manifest):
        write_whole(folder / name, read_regular(path))


def _small_files(out: Path, manifest: Manifest) -> Iterator[tuple[str, Path]]:
    for copied in manifest.copied:
        if not copied.file.endswith(HEADER):
            yield Path(copied.file).name, out / copied.file
