"""Lookup of a layer's tensors in checkpoints and dumps.

By role, or by the names of engines and models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import Checkpoint
from preshuffle.layouts.forensics.identification import Identification
from preshuffle.layouts.forensics.identify import identify
from preshuffle.layouts.forensics.joined_source import JoinedTensors
from preshuffle.layouts.forensics.source import Bytes, SourceError, TensorFile, of_raw_file
from preshuffle.layouts.loader import role_names
from preshuffle.registry import Query, Registry
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.words import ROLES, Role
from preshuffle.registry.loading import Book

SUFFIX = ".safetensors"


class Identifications(Frozen):
    """Identification of each tensor of a dump."""

    tensors: dict[Role, Identification]


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """Location of one side's bytes.

    Attributes:
        path: a folder, a safetensors file, or (with a shape) a file of bare bytes.
        tensor: the tensor's name, where its role does not tell.
        shape: torch's shape of bare bytes.
        dtype: of bare bytes.
    """

    path: Path
    tensor: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str = "uint8"


def identify_files(
    plain: TensorLocation,
    live: TensorLocation,
    *,
    role: Role | None = None,
    layer: int = 0,
    registry: Registry | None = None,
    **known: Any,
) -> Identifications:
    """Identify a dump's tensors against a checkpoint's.

    Args:
        plain: a Hugging Face folder, or a safetensors file.
        live: a safetensors file or a folder of them (names are roles, engines' names for them, or end in one), or a
            file of bare bytes.
        role: which tensor; all that both sides have if None.
        layer: which layer's, where names tell layers apart.
        registry: whose book names the checkpoint's tensors and the layouts.
        known: what else ``identify`` should know.

    Raises:
        SourceError: a file cannot be read, or a tensor is not there.
        CheckpointError: the checkpoint is not one.
        QueryError: its configuration cannot be read.
    """
    registry = registry or Registry.default()
    found = _roles(live, role, layer, registry.book)
    query, plain_of = _checkpoint(plain, layer, registry)
    tensors: dict[Role, Identification] = {}
    for name, there in found:
        source = plain_of(name, role is not None)
        if source is not None:
            tensors[name] = identify(source, there, role=name, query=query, registry=registry, **known)
    if not tensors:
        raise SourceError(
            f"{live.path} holds no tensor that {plain.path} has, too; found: {', '.join(n for n, _ in found)}"
        )
    return Identifications(tensors=tensors)


def _roles(live: TensorLocation, role: Role | None, layer: int, book: Book) -> list[tuple[Role, Bytes]]:
    if live.shape is not None or (live.path.is_file() and live.path.suffix != SUFFIX):
        if role is None or live.shape is None:
            raise SourceError(f"{live.path} is no {SUFFIX} file; bare bytes need a role and a shape")
        return [(role, of_raw_file(live.path, live.shape, live.dtype))]
    files = [TensorFile.open(path) for path in _files(live.path)]
    found: list[tuple[Role, Bytes]] = []
    for wanted in (role,) if role else ROLES:
        names = [(file, name) for file in files for name in file.header if _is_called(name, wanted, live.tensor, book)]
        chosen = _of_layer(names, layer)
        if len(chosen) > 1:
            names_found = ", ".join(name for _, name in chosen[:4])
            raise SourceError(f"{live.path}: {wanted} of layer {layer} may be any of {names_found}; name the tensor")
        found += [(wanted, file.tensor(name)) for file, name in chosen]
    if role and not found and live.tensor is None:
        tensors = [(file, name) for file in files for name in file.header]
        if len(tensors) == 1:  # a dump of a single tensor needs no names
            return [(role, tensors[0][0].tensor(tensors[0][1]))]
    if not found:
        names_found = ", ".join(name for file in files for name in list(file.header)[:8])
        wanted_names = live.tensor or role or "any role"
        raise SourceError(
            f"{live.path}: no tensor is called {wanted_names}; found: {names_found or 'nothing'}; name the tensor"
        )
    return found


def _checkpoint(plain: TensorLocation, layer: int, registry: Registry) -> tuple[Query | None, _CheckpointSide]:
    if plain.path.is_dir():
        checkpoint = Checkpoint.open(plain.path, registry)
        if not 0 <= layer < checkpoint.layers:
            raise SourceError(f"{plain.path}: layer {layer}; valid: 0..{checkpoint.layers - 1}")
        if layer not in checkpoint.experts:
            raise SourceError(f"{plain.path}: layer {layer} has no experts; valid: {_numbers_text(checkpoint.experts)}")
        arch = next(iter(registry.book.archs))
        query = registry.query_from_hf_config(checkpoint.config, layer=layer, arch=arch)
        names: dict[Role, list[str]] = {
            role: [
                name.format(layer=layer, expert=expert)
                for expert in range((checkpoint.routed or 1) if entry.per_expert else 1)
                for name in (entry.name, entry.up)
                if name is not None
            ]
            for role, entry in checkpoint.experts[layer].items()
        }
        return query, _CheckpointSide(plain, names, dict(checkpoint.shards), registry.book, checkpoint.routed or 1)
    file = TensorFile.open(plain.path)
    names = {}
    for entry in registry.book.model_types.values():
        for tensors in entry.checkpoint.values():
            called = {role: tensor.name.format(layer=layer) for role, tensor in tensors.items()}
            names |= {role: [name] for role, name in called.items() if name in file.header}
    return None, _CheckpointSide(plain, names, dict.fromkeys(file.header, plain.path), registry.book)


@dataclass(frozen=True, slots=True)
class _CheckpointSide:
    """Checkpoint side: maps roles to tensors to files.

    A role has one tensor, or one for every expert.
    """

    place: TensorLocation
    names: dict[Role, list[str]]
    shards: dict[str, Path]
    book: Book
    experts: int = 1

    def __call__(self, role: Role, needed: bool) -> Bytes | None:
        names = self.names.get(role, [])
        if self.place.tensor is None and len(names) > 1:
            return self._joined_tensors(role, names)
        called = (n for n in self.shards if _is_called(n, role, None, self.book))
        name = self.place.tensor or next(iter(names), None) or next(called, None)
        if name is None and len(self.shards) == 1 and needed:
            name = next(iter(self.shards))
        if name is None or name not in self.shards:
            if not needed:
                return None
            raise SourceError(f"{self.place.path} has no tensor {name or role}; name the tensor")
        return TensorFile.open(self.shards[name]).tensor(name)

    def _joined_tensors(self, role: Role, names: list[str]) -> Bytes:
        missing = next((name for name in names if name not in self.shards), None)
        if missing is not None:
            raise SourceError(f"{self.place.path} has no tensor {missing}")
        return JoinedTensors(role, [(self.shards[name], name) for name in names], self.experts)


def _numbers_text(layers: Iterable[int]) -> str:
    numbers = sorted(layers)
    return f"{numbers[0]}..{numbers[-1]}" if numbers else "none"


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob(f"*{SUFFIX}"))
    if not files:
        raise SourceError(f"{path} holds no {SUFFIX} file")
    return files


def _is_called(name: str, role: Role, exact: str | None, book: Book) -> bool:
    if exact is not None:
        return name == exact
    return any(name == called or name.endswith(f".{called}") for called in role_names(role, book))


def _of_layer(names: list[tuple[TensorFile, str]], layer: int) -> list[tuple[TensorFile, str]]:
    """Return the names that belong to a layer.

    A name without a number belongs to any.
    """
    return [entry for entry in names if (found := list(_numbers(entry[1]))) == [] or found[0] == layer]


def _numbers(name: str) -> Iterator[int]:
    return (int(part) for part in name.split(".") if part.isdigit())
