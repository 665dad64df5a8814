"""Stamp: what was done to the bytes of one tensor."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from math import prod
from typing import Annotated, ClassVar, Final, Literal

import torch
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from preshuffle.layouts.stamps.digests import DIGEST
from preshuffle.layouts.tensors import ACCEPTED_DTYPES, FLOAT_DTYPES
from preshuffle.registry import LayoutError
from preshuffle.registry.base.words import Role, RowOrder, Step, TensorDtype

State = Literal["applied", "reloading", "broken", "unknown"]
UNKNOWN: Final = "unknown"
Loss = Step | Literal["cast", "default"]


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
            move in place is under way, or if it was interrupted: the bytes are neither plain nor laid out;
            ``unknown`` where something else wrote to the bytes since: ``layout`` is ``unknown`` then, too.
        aiter_bytes: AITER's function gave the bytes, and they differ from those of ``layout``.
        pad_sums: checksums of the pads when a reload began; None where none began, or the pads prove nothing.
        digest: of all bytes, in the metadata of a file; None elsewhere.
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
    digest: Annotated[str, Field(pattern=DIGEST)] | None = field(default=None, compare=False)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Torch's shape of the laid-out tensor."""
        return self.passed_shape or self.physical_shape

    def as_unknown(self) -> Stamp:
        """Return the stamp of bytes that something else wrote to since."""
        return replace(self, state="unknown", layout=UNKNOWN, layout_line=None, is_shuffled=False, digest=None)

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
        stamp, digest = Stamp.split_text(text)
        return replace(stamp, digest=digest) if digest is not None else stamp

    @staticmethod
    def split_text(text: str) -> tuple[Stamp, str | None]:
        """Parse a stamp and, apart from it, its digest from JSON.

        Layers of a model have equal stamps but for their digests: each is parsed once.

        Raises:
            LayoutError: the text is no stamp.
        """
        found = _DIGEST_AT_END.search(text)
        if found is None or len(text) > _LONGEST_KEPT:
            stamp = _parsed(text)
            return replace(stamp, digest=None), stamp.digest
        return _kept(text[: found.start()] + ',"digest":null}'), found[1]


_ADAPTER: Final = TypeAdapter(Stamp)
_DIGEST_AT_END: Final = re.compile(rf',"digest":"({DIGEST.strip("^$")})"}}$')
"""End of a text as ``Stamp.to_text`` writes it."""
_LONGEST_KEPT: Final = 4096


def _parsed(text: str) -> Stamp:
    try:
        stamp = _ADAPTER.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise LayoutError(f"not a stamp ({f'{place}: ' if place else ''}{first['msg']}): {text[:80]!r}") from None
    same_size = stamp.padded_source or stamp.steps or prod(stamp.source_shape) == prod(stamp.shape)
    cast = stamp.source_dtype in FLOAT_DTYPES and not set(ACCEPTED_DTYPES.get(stamp.dtype, ())) & set(FLOAT_DTYPES)
    if cast or not same_size:
        raise LayoutError(f"not a stamp (its source is of another shape or dtype): {text[:80]!r}")
    return stamp


# Process-wide: a pure function of its text.
_kept: Final = lru_cache(maxsize=256)(_parsed)
