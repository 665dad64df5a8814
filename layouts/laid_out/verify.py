"""Proof of a laid-out checkpoint against its manifest and its checkpoint."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from preshuffle.layouts.checkpoint import is_remote, without_password
from preshuffle.layouts.laid_out.files.checked_file import check_copied, check_header, check_key
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import FileRecord, Manifest, TensorRecord
from preshuffle.layouts.laid_out.files.progress import Listener, Progress
from preshuffle.layouts.laid_out.files.rank_states import index_of, rank_index
from preshuffle.layouts.laid_out.remote_source import changed_sources
from preshuffle.layouts.laid_out.source_proof import SourceProof
from preshuffle.layouts.stamps import digest_file, digest_of, sample_file
from preshuffle.registry import PreshuffleError, Registry
from preshuffle.registry.base.frozen import Frozen

SAMPLES: Final = 64
IDENTIFIED: Final = 8
"""Problems of which ``identify`` is asked at most: each takes a fraction of a second."""


class VerifyProblem(Frozen):
    """What is wrong with a file.

    Attributes:
        file: which.
        tensor: of it; None where the file as such is wrong.
        problem: what is wrong.
        identified: what its bytes are, as far as ``identify`` finds out; None where nobody asked.
    """

    file: str
    tensor: str | None = None
    problem: str
    identified: str | None = None


class Verification(Frozen):
    """Result of a proof.

    Attributes:
        proof: whether every byte was read, or samples.
        against: the checkpoint that was compared; None for checksums alone.
        seed: by which samples were chosen.
        files: how many were looked at.
        tensors: how many tensors' bytes were read, all or a sample.
        recomputed: how many times experts were laid out again and compared.
    """

    verdict: Literal["ok", "failed"]
    proof: Literal["sampled", "full"]
    against: str | None
    seed: int | None
    key: str
    files: int
    tensors: int
    recomputed: int
    problems: tuple[VerifyProblem, ...]


def verify_laid_out(
    out: Path | str,
    *,
    against: Path | str | None = None,
    full: bool = False,
    samples: int = SAMPLES,
    seed: int | None = None,
    registry: Registry | None = None,
    workers: int = 1,
    listener: Listener | None = None,
) -> Verification:
    """Verify a laid-out checkpoint.

    Headers, sizes and keys of all files are always compared with the manifest.

    Args:
        out: its folder.
        against: the checkpoint; experts are laid out again from it and compared byte by byte. Of an address
            (``s3://…``) no tensor is read: see ``changed_sources``.
        full: read every byte, and lay every expert out again; else samples.
        samples: how many tensors are sampled, and how many experts are laid out again.
        seed: chooses the samples; a new one each time if None.
        registry: whose book decides, where experts are laid out again.
        workers: threads that read.
        listener: called with every event.

    Raises:
        LaidOutError: there is no manifest, or it is damaged; or ``full`` with an address.
        CheckpointError: the checkpoint cannot be read.
    """
    if full and isinstance(against, str) and is_remote(against):
        raise LaidOutError(f"{without_password(against)}: its tensors are not read; give a folder, or leave full away")
    out = Path(out)
    manifest = Manifest.read(out)
    chosen = random.Random() if seed is None else random.Random(seed)
    if seed is None:
        seed = chosen.randrange(1 << 32)
        chosen = random.Random(seed)
    problems = list(_files_problems(out, manifest))
    wrong = {problem.file for problem in problems}
    tensors = [(file, tensor) for file in manifest.files() if file.file not in wrong for tensor in file.tensors]
    read = tensors if full else chosen.sample(tensors, min(samples, len(tensors)))
    progress = Progress(sum(tensor.nbytes for _, tensor in read), listener)
    progress.tell("started")
    with ThreadPoolExecutor(workers) as pool:
        check = _Checksums(out, full, progress)
        problems += [found for found in pool.map(check, read) if found is not None]
    recomputed = 0
    if isinstance(against, str) and is_remote(against):
        found = changed_sources(out, manifest, against)
        problems += [VerifyProblem(file=file, tensor=tensor, problem=text) for file, tensor, text in found]
        against = without_password(against)
    elif against is not None:
        proof = SourceProof.open(out, manifest, Path(against), registry)
        done, more = proof.compare(chosen, samples, full)
        recomputed = done
        problems += [VerifyProblem(file=file, tensor=tensor, problem=text) for file, tensor, text in more]
        few = [proof_identified(proof, problem) for problem in problems[:IDENTIFIED]]
        problems = [*few, *problems[IDENTIFIED:]]
    progress.tell("finished")
    return Verification(
        verdict="failed" if problems else "ok",
        proof="full" if full else "sampled",
        against=None if against is None else str(against),
        seed=None if full else seed,
        key=manifest.key,
        files=sum(1 for _ in manifest.files()),
        tensors=len(read),
        recomputed=recomputed,
        problems=tuple(problems),
    )


def proof_identified(proof: SourceProof, problem: VerifyProblem) -> VerifyProblem:
    """Return a problem with what the tensor's bytes are."""
    text = proof.identify(problem.file, problem.tensor) if problem.tensor else None
    return problem.model_copy(update={"identified": text}) if text else problem


@dataclass(slots=True)
class _Checksums:
    """Compares checksums of tensors, or of samples of them."""

    out: Path
    full: bool
    progress: Progress

    def __call__(self, one: tuple[FileRecord, TensorRecord]) -> VerifyProblem | None:
        file, tensor = one
        extent = (tensor.begin, tensor.begin + tensor.nbytes)
        path = self.out / file.file
        try:
            sample = digest_of(sample_file(path, extent))
            whole = digest_file(path, extent) if self.full else tensor.digest
        except OSError as error:
            text = f"cannot be read: {error.strerror or error}"
            return VerifyProblem(file=file.file, tensor=tensor.name, problem=text)
        self.progress.advance(tensor.nbytes)
        if (sample, whole) != (tensor.sample, tensor.digest):
            text = "its bytes are not those that were written: checksum differs"
            return VerifyProblem(file=file.file, tensor=tensor.name, problem=text)
        return None


def _files_problems(out: Path, manifest: Manifest) -> Iterator[VerifyProblem]:
    for record in manifest.files():
        yield from _problem_of(record.file, partial(_check_file, out, record, manifest))
    for copied in manifest.copied:
        yield from _problem_of(copied.file, partial(check_copied, out, copied))
    names = {record.file for record in manifest.files()}
    for path in sorted(out.glob("*.safetensors")):
        if path.name not in names:
            yield VerifyProblem(file=path.name, problem="not in the manifest: of another run")
    for ep_rank in range(manifest.ep):
        for tp_rank in range(manifest.tp):
            name = rank_index(tp_rank, ep_rank)
            wanted = index_of((*manifest.rank(tp_rank, ep_rank), *manifest.others))
            if not (out / name).is_file():
                yield VerifyProblem(file=name, problem="missing")
            elif not _holds(out / name, wanted):
                yield VerifyProblem(file=name, problem="not the index of the files that the manifest lists")


def _check_file(out: Path, record: FileRecord, manifest: Manifest) -> None:
    check_key(check_header(out / record.file, record), record, manifest)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _problem_of(file: str, check: Callable[[], object]) -> Iterable[VerifyProblem]:
    try:
        check()
    except PreshuffleError as error:
        return [VerifyProblem(file=file, problem=str(error))]
    return []
