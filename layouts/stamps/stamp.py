"""Stamps: what a tensor's bytes are, recorded with their storage.

A Python attribute of a tensor is lost by ``nn.Parameter(t)``, ``.data``, ``.view(dtype)`` and ``.detach()``. The
storage is the same object under all of them, and dies with its last tensor; so does the stamp. A clone has another
storage and no stamp. Where the storage is a mapped file, the stamp is kept beside the file, for every process.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import torch
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from preshuffle.layouts.stamps.file_stamps import Entry, Extent, read_stamps, record_of, write_stamps
from preshuffle.layouts.stamps.mapped import find_mappings, mapping_of
from preshuffle.layouts.stamps.memory_extents import extent_of
from preshuffle.layouts.tensors import ACCEPTED_DTYPES, FLOAT_DTYPES, dtype_name
from preshuffle.registry import LayoutError
from preshuffle.registry.base.words import Role, RowOrder, Step, TensorDtype

_ATTRIBUTE: Final = "_preshuffle_stamps"
_HEADER: Final = "preshuffle."

State = Literal["applied", "reloading", "broken"]
Loss = Step | Literal["cast"]


def _dtype(name: object) -> torch.dtype:
    found = name if isinstance(name, torch.dtype) else getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch")
    return found


Sizes = tuple[Annotated[int, Field(gt=0)], ...]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Record of what was done to one tensor's bytes.

    Attributes:
        recipe: the recipe's id.
        decision_digest: of the decision that was applied.
        role: which tensor of the layer it is; None of bytes that ``apply_layout`` has not finished.
        layout: the layout that its bytes are in.
        layout_line: what that layout is, where it is an overlay's and not the packaged book's.
        shape: torch's shape of the live values, before padding.
        source_shape: torch's shape of the tensor that was laid out.
        physical_shape: torch's shape of the laid-out values.
        tail: where a second byte of K's pad begins, in elements, and the byte; None where all pads hold ``fill``.
        passed_shape: torch's shape of the laid-out tensor, where it is another view of them (an MX scale's).
        pad: pads in the tensor's own count, (rows of each half, K).
        dtype: what the kernel gets.
        source_dtype: torch's dtype of the plain tensor, to which an inverse returns.
        source_order: row order of the plain tensor; None where it has no gate and up.
        order: row order under the layout.
        fill: the byte in the pads.
        padded_source: the plain tensor already had the physical shape.
        is_shuffled: whether AITER's tag belongs on the object that the kernel gets.
        steps: what was done to the values.
        lost: those of the steps that cannot be undone on these values; ``cast`` where a narrower dtype cut them.
        flat_rows: padded rows of one expert, where tiles or the padded tail run over experts.
        state: ``applied``; ``reloading`` while plain bytes are being written over the laid-out ones; ``broken`` while a
            move in place is under way, or if it was interrupted: the bytes are neither plain nor laid out.
        aiter_bytes: AITER's function gave the bytes, and they differ from those of ``layout``.
        pad_sums: checksums of the pads when a reload began; None where none began, or the pads prove nothing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    recipe: str
    decision_digest: str
    role: Role | None
    layout: str
    shape: Sizes
    source_shape: Sizes
    physical_shape: Sizes
    pad: tuple[Count, Count]
    dtype: TensorDtype
    source_dtype: Annotated[torch.dtype, PlainValidator(_dtype)]
    source_order: RowOrder | None
    order: RowOrder | None
    fill: Annotated[int, Field(ge=0, le=255)]
    padded_source: bool
    is_shuffled: bool
    steps: tuple[Step, ...] = ()
    lost: tuple[Loss, ...] = ()
    flat_rows: Annotated[int, Field(gt=0)] | None = None
    state: State = "applied"
    layout_line: str | None = None
    aiter_bytes: bool = False
    pad_sums: tuple[int, ...] | None = None
    passed_shape: Sizes | None = None
    tail: tuple[Count, Annotated[int, Field(ge=0, le=255)]] | None = None

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Torch's shape of the laid-out tensor."""
        return self.passed_shape or self.physical_shape

    def to_text(self) -> str:
        """Serialise the stamp as JSON, for a safetensors header."""
        values = asdict(self)
        values["source_dtype"] = str(self.source_dtype).removeprefix("torch.")
        return json.dumps(values, separators=(",", ":"))

    @staticmethod
    def from_text(text: str) -> Stamp:
        """Parse a stamp from its JSON.

        Raises:
            LayoutError: the text is no stamp.
        """
        try:
            stamp = _adapter().validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise LayoutError(f"not a stamp ({f'{place}: ' if place else ''}{first['msg']}): {text[:80]!r}") from None
        same_size = stamp.padded_source or stamp.steps or prod(stamp.source_shape) == prod(stamp.shape)
        cast = stamp.source_dtype in FLOAT_DTYPES and not set(ACCEPTED_DTYPES.get(stamp.dtype, ())) & set(FLOAT_DTYPES)
        if cast or not same_size:
            raise LayoutError(f"not a stamp (its source is of another shape or dtype): {text[:80]!r}")
        return stamp


# Process-wide: built once from the class, never changed.
@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Stamp]:
    return TypeAdapter(Stamp)


def stamp_of(tensor: torch.Tensor) -> Stamp | None:
    """Return the stamp of a tensor's bytes, or None.

    A view of part of a stamped tensor (one expert, say) has the whole tensor's stamp.
    """
    begin, end = extent_of(tensor)
    for (first, last), stamp in _stamps(tensor).items():
        if first <= begin and end <= last:
            return stamp
    return None


def overlapping_stamps(tensor: torch.Tensor) -> list[Stamp]:
    """Return the stamps of all bytes that overlap a tensor."""
    return list(_overlapping(tensor).values())


def enclosing_stamps(tensor: torch.Tensor) -> list[Stamp]:
    """Return stamps of bytes that reach beyond a tensor.

    The tensor shows a part of those bytes, and not all.
    """
    begin, end = extent_of(tensor)
    return [stamp for (first, last), stamp in _overlapping(tensor).items() if first < begin or end < last]


def _overlapping(tensor: torch.Tensor) -> dict[Extent, Stamp]:
    begin, end = extent_of(tensor)
    return {(first, last): stamp for (first, last), stamp in _stamps(tensor).items() if first < end and begin < last}


def put_stamp(tensor: torch.Tensor, stamp: Stamp) -> None:
    """Stamp a tensor's bytes; replace what was recorded before.

    Raises:
        LayoutError: the tensor is a mapped file, and the record beside it cannot be written.
    """
    put_stamps([(tensor, stamp)])


def put_stamps(stamped: Iterable[tuple[torch.Tensor, Stamp | None]]) -> None:
    """Stamp several tensors' bytes; None removes a stamp.

    Those of one file are written at once.
    """
    _record(list(stamped))


def drop_stamp(tensor: torch.Tensor) -> None:
    """Remove every stamp of a tensor's bytes."""
    if _stamps(tensor):
        _record([(tensor, None)])


def check_role(role: Role, stamp: Stamp) -> None:
    """Raise a LayoutError where a stamp is another role's."""
    if stamp.role != role:
        raise LayoutError(f"{role} holds what was laid out as {stamp.role} ({stamp.layout}, recipe {stamp.recipe})")


def record_location(tensor: torch.Tensor) -> str:
    """Return where a file's stamp is recorded, for messages.

    Empty where the stamp is in this process's memory and no file's.
    """
    mapping = mapping_of(tensor)
    return f" (says {record_of(mapping.path)})" if mapping is not None else ""


def stamps_to_metadata(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return stamps as metadata of a safetensors file.

    Tensors without a stamp are left out.
    """
    found = {name: stamp_of(tensor) for name, tensor in tensors.items()}
    return {f"{_HEADER}{name}": stamp.to_text() for name, stamp in found.items() if stamp is not None}


def stamps_from_metadata(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> None:
    """Stamp tensors from the metadata of their safetensors file.

    Raises:
        LayoutError: the metadata is damaged, or a tensor has another shape than its stamp says; none is stamped then.
    """
    stamps: dict[str, Stamp] = {}
    for key, text in (metadata or {}).items():
        name = key.removeprefix(_HEADER)
        if key.startswith(_HEADER) and name in tensors:
            stamp = Stamp.from_text(text)
            if tuple(tensors[name].shape) != stamp.tensor_shape:
                raise LayoutError(f"{name} has shape {tuple(tensors[name].shape)}; its stamp says {stamp.tensor_shape}")
            carriers = ACCEPTED_DTYPES[stamp.dtype]
            if tensors[name].element_size() not in {dtype.itemsize for dtype in carriers}:
                raise LayoutError(f"{name} is {dtype_name(tensors[name].dtype)}; its stamp says {stamp.dtype}")
            stamps[name] = stamp
    for name, stamp in stamps.items():
        put_stamp(tensors[name], stamp)


def _stamps(tensor: torch.Tensor) -> dict[Extent, Stamp]:
    storage, mapping = tensor.untyped_storage(), mapping_of(tensor)
    if mapping is not None and (mapping.shared or not hasattr(storage, _ATTRIBUTE)):
        texts, start = read_stamps(mapping.path), mapping.offset
        inside = {extent: text for extent, text in texts.items() if extent[1] > start}
        try:
            found = {(first - start, last - start): Stamp.from_text(text) for (first, last), text in inside.items()}
        except LayoutError as error:
            raise LayoutError(f"{record_of(mapping.path)}: {error}") from None
        if mapping.shared:
            return found
        _store(storage, found)
    return _stored(storage)


def _store(storage: torch.UntypedStorage, stamps: dict[Extent, Stamp]) -> None:
    setattr(storage, _ATTRIBUTE, (storage.data_ptr(), stamps))


def _stored(storage: torch.UntypedStorage) -> dict[Extent, Stamp]:
    """Return a storage's valid stamps.

    None of them where its memory lies elsewhere by now, or is too small (``resize_``).

    Memory that was freed and given back at the same address between two checks cannot be distinguished from memory
    that was kept.
    """
    address, stamps = getattr(storage, _ATTRIBUTE, (0, {}))
    if not stamps:
        return {}
    moved = storage.data_ptr() != address and not (storage.device.type == "cpu" and storage.is_shared())
    if moved or max(end for _, end in stamps) > storage.nbytes():
        setattr(storage, _ATTRIBUTE, (0, {}))
        return {}
    found: dict[Extent, Stamp] = stamps
    return found


def _record(stamped: list[tuple[torch.Tensor, Stamp | None]]) -> None:
    find_mappings(tensor for tensor, _ in stamped)
    files: dict[Path, dict[Extent, Entry | None]] = defaultdict(dict)
    for tensor, stamp in stamped:
        begin, end = extent_of(tensor)
        mapping = mapping_of(tensor)
        if mapping is not None and mapping.shared:
            entry = Entry(stamp.to_text(), settled=stamp.state == "applied") if stamp is not None else None
            files[mapping.path][begin + mapping.offset, end + mapping.offset] = entry
            continue
        stamps = {
            extent: stored for extent, stored in _stamps(tensor).items() if extent[1] <= begin or end <= extent[0]
        }
        if stamp is not None:
            stamps[begin, end] = stamp
        _store(tensor.untyped_storage(), stamps)
    for path, changes in files.items():
        write_stamps(path, changes)
