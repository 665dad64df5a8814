"""Manifest of a laid-out checkpoint: files, checksums, keys and origin."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from preshuffle.layouts.checkpoint import Part, read_regular, stored_names
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.seal import is_sealed, sealed
from preshuffle.layouts.stamps import Loss
from preshuffle.registry import Query
from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.words import Role, Shard
from preshuffle.registry.entries import CheckpointTensor, PadRule
from preshuffle.registry.resolve import LoaderCut

MANIFEST: Final = "manifest.json"
FORMAT: Final[Literal[1]] = 1
WORK: Final = ".unfinished"
"""Folder with what a run that is not finished knows."""
SOURCE: Final = "source"
"""Folder with what only the checkpoint's restoration needs: headers and index of its shards."""

_Name = Annotated[str, Field(pattern=r"^(source/)?([^/.\x00]|\.[^/.\x00]|\.\.[^/\x00])[^/\x00]*$")]
"""Name of a file in the folder or in ``source``: a manifest from elsewhere leads nowhere else."""
_Size = Annotated[int, Field(ge=0)]


class SourceRecord(Frozen):
    """File of the checkpoint.

    Attributes:
        name: in the checkpoint's folder.
        size: in bytes.
        digest: of all its bytes.
        identity: what its file system said of its bytes (``sha256``, ``etag``, …), if it was another one.
    """

    name: _Name
    size: _Size
    digest: str
    identity: FrozenDict[str, str] = FrozenDict()


class TensorRecord(Frozen):
    """One tensor of a file.

    Attributes:
        name: the engine's parameter, or the checkpoint's tensor.
        role: of a MoE layer; None for a tensor that was left as it is.
        dtype: safetensors' name of its dtype.
        torch_dtype: torch's name of the dtype that the kernel gets, where that is another one.
        begin: its first byte, counted from the file's beginning.
        digest: of all its bytes.
        sample: digest of a sample of its bytes.
        stamped: whether its layout is recorded; a plain tensor's is not.
        lost: steps that cannot be undone on its values.
    """

    name: str
    role: Role | None = None
    dtype: str
    torch_dtype: str | None = None
    shape: tuple[int, ...]
    begin: int
    nbytes: int
    digest: str
    sample: str
    stamped: bool = False
    lost: tuple[Loss, ...] = ()


class FileRecord(Frozen):
    """Safetensors file that was written.

    Attributes:
        key: of everything that decides its bytes.
        layer: whose experts it holds; None where it holds other tensors.
        tp_rank: whose they are; None where every rank reads them.
        ep_rank: likewise.
        size: of the file.
        header: checksum of its header.
    """

    file: _Name
    key: str
    layer: int | None = None
    tp_rank: int | None = None
    ep_rank: int | None = None
    size: int
    header: str
    tensors: tuple[TensorRecord, ...]


class CopiedRecord(Frozen):
    """Small file that was copied (configuration, tokenizer)."""

    file: _Name
    size: _Size
    digest: str


class LayerPlan(Frozen):
    """Layers that were laid out by one decision.

    Attributes:
        query: what was asked for.
        shard: how the loader cuts the intermediate size.
        pad: multiples to which the recipe pads a rank's rows.
        routed: how many routed experts the checkpoint has.
        entries: how the checkpoint stores each role.
        prefix: what stands before a parameter's own name, with ``{layer}``.
        parameters: the engine's names of roles, where they are not the roles.
        layouts: by role.
        pads: by role, rows of each half and K.
    """

    layers: tuple[int, ...]
    query: Query
    recipe: str
    decision_digest: str
    shard: Shard
    pad: PadRule | None
    routed: int | None
    entries: FrozenDict[Role, CheckpointTensor]
    prefix: str
    parameters: FrozenDict[str, str]
    layouts: FrozenDict[Role, str]
    pads: FrozenDict[Role, tuple[int, int]]

    def part(self, tp_rank: int, ep_rank: int) -> Part:
        """Return what one rank takes of a layer."""
        return Part.of(self.query, tp_rank, ep_rank, self.routed, LoaderCut(self.shard, self.pad))

    def key_of(self, layer: int, tp_rank: int, ep_rank: int, digests: Mapping[str, str]) -> str:
        """Return the key of what decides a rank's file.

        Args:
            layer: which layer.
            tp_rank: whose file.
            ep_rank: whose file.
            digests: of the shards that hold the layer, by name.
        """
        return digest_of_json(
            {
                "rank": [layer, tp_rank, self.query.tp, ep_rank, self.query.ep],
                "decision": self.decision_digest,
                **self.naming(),
                "sources": dict(digests),
            }
        )

    def naming(self) -> dict[str, Any]:
        """Return what decides cuts and names beside the decision."""
        return naming_of(self.shard, self.pad, self.prefix, self.parameters)

    def stored_names(self, role: Role, layer: int) -> list[list[str]]:
        """Return the checkpoint's tensors of a role, by expert.

        A fused shared expert's come last.
        """
        count = self.query.num_experts or 0
        routed = count if self.routed is None else self.routed
        return stored_names(self.entries[role], layer, routed, count > routed)

    def flat_names(self, role: Role, layer: int) -> list[str]:
        """Return the checkpoint's tensors of a role."""
        return [name for names in self.stored_names(role, layer) for name in names]

    def name_of(self, role: str, layer: int) -> str:
        """Return the parameter's full name."""
        return self.prefix.format(layer=layer) + self.parameters.get(role, role)


class Manifest(Frozen):
    """Everything about a laid-out checkpoint; written last.

    Attributes:
        key: of everything that decides the bytes of all files: the cache key.
        registry_digest: of the book that decided.
        aiter: AITER's version that the query stated.
        aiter_features: its features, as stated or probed.
        sources: the checkpoint's shards.
        ranks: files of each rank's experts.
        others: files of tensors that were left as they are.
        kept: files of experts' tensors as they were, which could not be restored else.
        complete: whether every other tensor of the checkpoint is there.
        checksum: of every other byte of the manifest.
    """

    format: Literal[1]
    key: str
    tp: int
    ep: int
    registry_digest: str
    aiter: str | None
    aiter_features: FrozenDict[str, bool]
    plans: tuple[LayerPlan, ...]
    sources: tuple[SourceRecord, ...]
    ranks: tuple[FileRecord, ...]
    others: tuple[FileRecord, ...]
    kept: tuple[FileRecord, ...]
    copied: tuple[CopiedRecord, ...]
    complete: bool
    checksum: str

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read a folder's manifest.

        Raises:
            LaidOutError: there is none, or it is damaged.
        """
        path = folder / MANIFEST
        try:
            text = read_regular(path)
        except OSError as error:
            if os.path.isdir(folder / WORK):  # unlike Path.is_dir it raises nothing where the folder cannot be read
                raise LaidOutError(f"{folder}: unfinished; run the same apply again, it resumes") from None
            plain = isinstance(error, FileNotFoundError) and os.path.isdir(folder)
            hint = f"; {folder} holds no laid-out checkpoint; preshuffle apply makes one" if plain else ""
            raise LaidOutError(f"{path}: cannot be read: {error.strerror or error}{hint}") from None
        try:
            manifest = Manifest.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise LaidOutError(f"{path}: no manifest of a laid-out checkpoint ({where}: {first['msg']})") from None
        if manifest.key != manifest.computed_key():
            raise LaidOutError(f"{path}: its key is not that of what it lists: it was changed, or mixed with another's")
        if manifest.tp * manifest.ep != len(manifest._ranks):
            raise LaidOutError(f"{path}: it lists the files of other ranks than its tp={manifest.tp}, ep={manifest.ep}")
        if not is_sealed(text, manifest.checksum):
            raise LaidOutError(f"{path}: was changed since it was written: its checksum differs")
        return manifest

    def sealed(self) -> tuple[Manifest, bytes]:
        """Return the manifest with its checksum, and the bytes of its file."""
        data, checksum = sealed(self.model_dump_json(exclude_defaults=True).encode())
        return self.model_copy(update={"checksum": checksum}), data

    def computed_key(self) -> str:
        """Return the key of what the manifest lists."""
        return manifest_key(self.files(), self.sources)

    def plan_of(self, layer: int) -> LayerPlan:
        """Return the plan of a layer."""
        return self._plans[layer]

    @cached_property
    def _plans(self) -> dict[int, LayerPlan]:
        return {layer: plan for plan in self.plans for layer in plan.layers}

    def digests(self) -> Mapping[str, str]:
        """Return the digests of the checkpoint's shards, by name."""
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {one.name: one.digest for one in self.sources}

    def files(self) -> Iterator[FileRecord]:
        """Yield every safetensors file."""
        yield from self.ranks
        yield from self.others
        yield from self.kept

    def kept_names(self) -> frozenset[str]:
        """Return the experts' tensors that were kept as they were."""
        return self._kept_names

    @cached_property
    def _kept_names(self) -> frozenset[str]:
        return frozenset(tensor.name for file in self.kept for tensor in file.tensors)

    def rank(self, tp_rank: int, ep_rank: int) -> tuple[FileRecord, ...]:
        """Return the files of one rank's experts, by layer.

        Raises:
            LaidOutError: there is no such rank.
        """
        found = self._ranks.get((tp_rank, ep_rank))
        if found is None:
            raise LaidOutError(f"rank (tp {tp_rank}, ep {ep_rank}) is not one of tp={self.tp}, ep={self.ep}")
        return found

    @cached_property
    def _ranks(self) -> dict[tuple[int | None, int | None], tuple[FileRecord, ...]]:
        return by_rank(self.ranks)


def by_rank(files: Iterable[FileRecord]) -> dict[tuple[int | None, int | None], tuple[FileRecord, ...]]:
    """Return files by ``(tp_rank, ep_rank)``, those of each rank in their order."""
    found: dict[tuple[int | None, int | None], list[FileRecord]] = {}
    for one in files:
        found.setdefault((one.tp_rank, one.ep_rank), []).append(one)
    return {rank: tuple(some) for rank, some in found.items()}


def naming_of(shard: Shard, pad: PadRule | None, prefix: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return what decides cuts and names beside the decision.

    Args:
        shard: how the loader cuts the intermediate size.
        pad: multiples to which the recipe pads a rank's rows.
        prefix: what stands before a parameter's own name.
        parameters: the engine's names of roles, where they are not the roles.
    """
    steps = [step.model_dump(mode="json") for step in pad] if isinstance(pad, tuple) else pad
    return {"cut": [shard, steps], "names": [prefix, dict(parameters)]}


def digest_of_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def key_of_copies(digest: str, names: Iterable[str]) -> str:
    """Return the key of a file of copied tensors.

    Args:
        digest: of the shard that holds them.
        names: of the tensors, in the order of their bytes.
    """
    return digest_of_json({"source": digest, "names": list(names)})


def manifest_key(files: Iterable[FileRecord], sources: Iterable[SourceRecord]) -> str:
    """Return the key of a laid-out checkpoint."""
    return digest_of_json(
        {
            "format": FORMAT,
            "files": {one.file: one.key for one in files},
            "sources": {one.name: [one.size, one.digest] for one in sources},
        }
    )


def rank_file(layer: int, tp_rank: int, ep_rank: int) -> str:
    """Return the name of a rank's file of one layer."""
    return f"rank-tp{tp_rank}-ep{ep_rank}-layer-{layer:05d}.safetensors"
