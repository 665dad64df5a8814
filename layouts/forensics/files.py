"""Lookup of a layer's tensors in checkpoints and dumps.

By role, or by the names of engines and models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import Checkpoint
from preshuffle.layouts.forensics.checkpoint_layer import CheckpointLayer
from preshuffle.layouts.forensics.identification import Identification
from preshuffle.layouts.forensics.identify import identify
from preshuffle.layouts.forensics.slots import held_experts
from preshuffle.layouts.forensics.source import Bytes, SourceError, TensorFile, of_raw_file
from preshuffle.layouts.loader import role_names
from preshuffle.registry import Registry
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
    engine: str | None = None,
    num_experts: int | None = None,
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
        engine: the engine that holds the dump: it tells how many slots a rank has beyond its routed experts.
        num_experts: of the whole layer as the engine holds it, the slots of all ranks counted; overrides ``engine``.
        known: what else ``identify`` should know.

    Raises:
        SourceError: a file cannot be read, or a tensor is not there.
        CheckpointError: the checkpoint is not one.
        QueryError: its configuration cannot be read.
    """
    registry = registry or Registry.default()
    found = _roles(live, role, layer, registry.book)
    ep = known.get("ep")
    given = {name: value for name, value in (("engine", engine), ("ep", ep)) if value is not None}
    side = _checkpoint(plain, layer, registry, given)
    query = side.query
    counted = query.num_experts if engine and ep and query else None
    told = num_experts or _counted(found, side, ep, counted)
    tensors: dict[Role, Identification] = {}
    for name, there in found:
        source = _plain_tensor(plain, side, name, registry.book, role is not None)
        if source is not None:
            tensors[name] = identify(
                source,
                there,
                role=name,
                query=query,
                registry=registry,
                num_experts=told,
                shared=side.shared_of(name),
                **known,
            )
    if not tensors:
        raise SourceError(
            f"{live.path} holds no tensor that {plain.path} has, too; found: {', '.join(n for n, _ in found)}"
        )
    return Identifications(tensors=tensors)


def _counted(
    found: list[tuple[Role, Bytes]], plain: CheckpointLayer, ep: int | None, counted: int | None
) -> int | None:
    """Return the layer's experts, slots counted, as a tensor with an axis for experts tells them.

    Flat tensors do not tell; of a dump that has only those the engine's number counts, where it is known.

    Args:
        found: the dump's tensors.
        plain: the checkpoint.
        ep: expert-parallel size, where it is known.
        counted: what the engine makes of the model's experts.
    """
    tensor = next((tensor for _, tensor in found if len(tensor.shape) == 3), None)
    if tensor is None or (counted is not None and ep and tensor.shape[0] * ep == counted):
        return counted
    held = held_experts(plain.experts, tensor, ep, None, bias=False) if plain.has_shared() else None
    return None if held is None else (held.routed + held.slots) * held.ep


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


def _checkpoint(plain: TensorLocation, layer: int, registry: Registry, given: Mapping[str, Any]) -> CheckpointLayer:
    if plain.path.is_dir():
        return CheckpointLayer.of(Checkpoint.open(plain.path, registry), layer, given)
    file = TensorFile.open(plain.path)
    names: dict[Role, list[str]] = {}
    for entry in registry.book.model_types.values():
        for tensors in entry.checkpoint.values():
            called = {role: tensor.name.format(layer=layer) for role, tensor in tensors.items()}
            names |= {role: [name] for role, name in called.items() if name in file.header}
    return CheckpointLayer(plain.path, names, dict.fromkeys(file.header, plain.path))


def _plain_tensor(plain: TensorLocation, side: CheckpointLayer, role: Role, book: Book, needed: bool) -> Bytes | None:
    """Return a role's tensor, under a name that was given or that is known; None where it need not be there."""
    if plain.tensor is None and len(side.names.get(role, ())) > 1:
        return side.tensor(role)
    called = (name for name in side.shards if _is_called(name, role, None, book))
    name = plain.tensor or next(iter(side.names.get(role, ())), None) or next(called, None)
    if name is None and len(side.shards) == 1 and needed:
        name = next(iter(side.shards))
    if name is not None and name in side.shards:
        return side.named(name)
    if needed:
        raise SourceError(f"{plain.path} has no tensor {name or role}; name the tensor")
    return None


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
