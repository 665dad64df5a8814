"""Comparison of a laid-out checkpoint with the checkpoint it was made of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from preshuffle.layouts.checkpoint import Checkpoint, MappedShards, Part
from preshuffle.layouts.forensics import TensorLocation, identify_files
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import FileRecord, LayerPlan, Manifest, TensorRecord
from preshuffle.layouts.laid_out.remote_source import Difference, changed_sources
from preshuffle.layouts.laid_out.runs.rank_role import RankRole, read_plain
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer, RunPlan
from preshuffle.layouts.stamps import digest_file, digest_of, sample_file
from preshuffle.layouts.tensors import as_bytes
from preshuffle.registry import Decision, PreshuffleError, Registry
from preshuffle.registry.base.words import Role


@dataclass(frozen=True, slots=True)
class SourceProof:
    """Lays experts out again, and compares bytes.

    Attributes:
        plan: of the run that made the folder.
        early: differences that were found before any byte was read.
    """

    out: Path
    manifest: Manifest
    plan: RunPlan
    shards: MappedShards
    early: tuple[Difference, ...]

    @staticmethod
    def open(out: Path, manifest: Manifest, folder: Path, registry: Registry | None) -> SourceProof:
        """Open the checkpoint, and decide as the run did.

        Raises:
            CheckpointError: the checkpoint cannot be read.
            LaidOutError: the book now decides otherwise.
        """
        checkpoint = Checkpoint.open(folder, registry)
        layers: dict[int, tuple[LayerPlan, Decision]] = {}
        for one in manifest.plans:
            decision = checkpoint.registry.resolve(one.query, kernels=False)
            if decision.decision_digest != one.decision_digest:
                raise LaidOutError(
                    f"{out}: laid out by recipe {one.recipe} ({one.decision_digest}); the book now decides "
                    f"{decision.recipe} ({decision.decision_digest}): apply again, or verify with the book of then"
                )
            layers |= {layer: (one, decision) for layer in one.layers}
        plan = RunPlan(checkpoint, manifest.plans, layers)
        early = tuple(changed_sources(out, manifest, folder))
        return SourceProof(out, manifest, plan, MappedShards(), early)

    def compare(self, chosen: random.Random, samples: int, full: bool) -> tuple[int, list[Difference]]:
        """Compare experts, and tensors that were left as they are.

        Args:
            chosen: chooses samples.
            samples: how many experts are laid out again, and how many other tensors are sampled.
            full: all of them, and the digests of the checkpoint's files.

        Returns:
            How many times experts were laid out again, and what differs.
        """
        found = list(self.early)
        if found:
            return 0, found
        if full:
            found += self._changed_files()
        pieces = list(self._pieces())
        some = pieces if full else chosen.sample(pieces, min(samples, len(pieces)))
        for unit, record, tensor in some:
            found += self._compare_role(unit, record, tensor, None if full else chosen)
        copied = [(file, tensor) for file in (*self.manifest.others, *self.manifest.kept) for tensor in file.tensors]
        for file, tensor in copied if full else chosen.sample(copied, min(samples, len(copied))):
            found += self._compare_copied(file, tensor, full)
        return len(some), found

    def identify(self, file: str, tensor: str) -> str | None:
        """Return what a tensor's bytes are, if that is found out."""
        record = next((one for one in self.manifest.ranks if one.file == file), None)
        stored = next((one for one in record.tensors if one.name == tensor), None) if record else None
        if record is None or stored is None or stored.role is None or record.layer is None:
            return None
        query = self.manifest.plan_of(record.layer).query
        try:
            found = identify_files(
                TensorLocation(self.plan.checkpoint.folder), TensorLocation(self.out / file, tensor),
                role=stored.role, layer=record.layer, registry=self.plan.checkpoint.registry, tp=query.tp, ep=query.ep,
                tp_rank=record.tp_rank, ep_rank=record.ep_rank, num_experts=query.num_experts,
            )  # fmt: skip
        except PreshuffleError as error:
            return f"unknown ({error})"
        one = found.tensors[stored.role]
        return f"{one.verdict}: {one.name}" if one.verdict != "unknown" else "unknown"

    def _pieces(self) -> Iterator[tuple[RankLayer, FileRecord, TensorRecord]]:
        records = {record.file: record for record in self.manifest.ranks}
        for unit in self.plan.units():
            record = records[unit.file]
            for tensor in record.tensors:
                yield unit, record, tensor

    def _compare_role(
        self, unit: RankLayer, record: FileRecord, tensor: TensorRecord, chosen: random.Random | None
    ) -> Iterator[Difference]:
        role, part = tensor.role, unit.plan.part(unit.tp_rank, unit.ep_rank)
        if role is None:
            return
        place = tensor.begin
        rank_role = RankRole(unit, self.plan, self.shards, role, part) if role in unit.decision.tensors else None
        ranges = list(rank_role.ranges()) if rank_role else [(0, part.count)]
        one = chosen.choice(ranges) if chosen is not None else None
        for experts in ranges:
            if one is not None and experts != one and len(ranges) > 1:
                place += tensor.nbytes * (experts[1] - experts[0]) // part.count
                continue
            laid = rank_role.lay_out(experts)[1] if rank_role else self._plain(unit, role, part)
            stored = _bytes_of(self.out / record.file, place, laid.numel())
            place += laid.numel()
            if not laid.equal(stored):
                where = int((laid != stored).nonzero()[0]) if laid.numel() == stored.numel() else 0
                first = experts[0] + where * (experts[1] - experts[0]) // max(laid.numel(), 1)
                yield record.file, tensor.name, f"not what the checkpoint gives, from about expert {first} on"
                return

    def _plain(self, unit: RankLayer, role: Role, part: Part) -> torch.Tensor:
        return as_bytes(read_plain(unit, self.plan, self.shards, (role,), part)[role])

    def _compare_copied(self, file: FileRecord, tensor: TensorRecord, full: bool) -> Iterator[Difference]:
        path = self.plan.checkpoint.shards.get(tensor.name)
        entry = self.shards.header(path).entries.get(tensor.name) if path else None
        if path is None or entry is None:
            yield file.file, tensor.name, "the checkpoint has no such tensor"
            return
        extent = (entry.begin, entry.end)
        found, wanted = (digest_file, tensor.digest) if full else (_sample_digest, tensor.sample)
        same = found(path, extent) == wanted
        if not same:
            yield file.file, tensor.name, "not what the checkpoint holds"

    def _changed_files(self) -> Iterator[Difference]:
        for source in self.manifest.sources:
            path = self.plan.checkpoint.folder / source.name
            if digest_file(path, (0, source.size)) != source.digest:
                yield source.name, None, f"{path}: not the file that was laid out: its bytes differ"


def _bytes_of(path: Path, begin: int, size: int) -> torch.Tensor:
    with path.open("rb") as stream:
        stream.seek(begin)
        return torch.frombuffer(bytearray(stream.read(size)), dtype=torch.uint8)


def _sample_digest(path: Path, extent: tuple[int, int]) -> str:
    return digest_of(sample_file(path, extent))
