"""Bytes of every layout against AITER's own functions."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.child import run_worker
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.errors import ConformError
from preshuffle.layouts.conform.standins.known_bytes import known_bytes
from preshuffle.layouts.loader import apply_layout
from preshuffle.registry import Layout, LayoutError
from preshuffle.registry.entries import AiterFunction, LayoutEntry
from preshuffle.registry.loading import Book

TIMEOUT_S: Final = 300.0
SCALE_FILL: Final = 0x7F
"""e8m0's one, the byte that AITER's functions pad scales with where they write their padding."""
_SCALES: Final = ("uint8", "float8_e8m0fnu")
_BYTES: Final = ("uint8", "int8", "float8_e4m3fn", "float8_e4m3fnuz", "float4_e2m1fn_x2")
_HALVES: Final = ("bfloat16", "float16")
# [experts, rows, bytes of a row]; the last of each are like gpt-oss's
_WEIGHT_SHAPES: Final = ((1, 32, 64), (3, 64, 256), (8, 96, 128), (2, 512, 448), (1, 720, 192), (2, 96, 768))
_SCALE_SHAPES: Final = ((1, 32, 8), (4, 256, 16), (3, 96, 8), (2, 512, 96), (2, 384, 48))
_PADDED_SCALES: Final = ((1, 288, 8), (1, 256, 6), (1, 100, 6), (1, 2880, 90), (1, 64, 4), (1, 96, 9))


@dataclass(frozen=True, slots=True)
class ByteCase:
    """One call of one of AITER's functions.

    Attributes:
        shape: ``(experts, rows, bytes of a row)``.
        dtype: torch's name.
        arch: the GPU that the function is told of.
    """

    entry: LayoutEntry
    function: AiterFunction
    shape: tuple[int, int, int]
    dtype: str
    arch: str

    def request(self) -> dict[str, Any]:
        """Return the case as JSON values for the child."""
        known = self.function
        return {
            **{"module": known.module, "name": known.name, "arguments": known.arguments, "flat": known.flat},
            **{"shape": self.shape, "dtype": self.dtype, "arch": self.arch},
        }

    @property
    def text(self) -> str:
        """Describe the call."""
        given = "".join(f", {value}" for value in self.function.arguments)
        return f"{self.function.name}({self.dtype} {list(self.shape)}{given}) on {self.arch}"


def byte_cases(book: Book) -> list[ByteCase]:
    """Return calls of AITER's functions for every layout."""
    return [
        ByteCase(entry, function, shape, dtype, arch)
        for entry in book.layouts.values()
        for function in entry.aiter
        for arch in function.archs or ("gfx950",)
        for shape, dtype in _inputs(entry, function)
    ]


def check_bytes(
    source: AiterSource, book: Book, progress: Callable[[int, int], None] = lambda done, all: None
) -> ClaimLog:
    """Compare our bytes with those of AITER's functions.

    Args:
        source: of which AITER.
        book: whose layouts.
        progress: called with cases done and all cases.
    """
    log = ClaimLog()
    for id, entry in book.layouts.items():
        if not entry.aiter and id != "plain":
            log.not_run(f"layouts.{id}", "the entry names no function of AITER's")
    cases = byte_cases(book)
    request = {"root": str(source.root), "package": str(source.package), "cases": [case.request() for case in cases]}
    try:
        answers = run_worker(
            "layout_worker", request, timeout_s=TIMEOUT_S, progress=lambda done: progress(done, len(cases))
        )
    except ConformError as error:
        log.not_run("every layout's bytes", str(error))
        return log
    answered = {answer["number"]: answer for answer in answers if "number" in answer}
    for number, case in enumerate(cases):
        if number in answered:
            _compare(log, source, case, answered[number])
        else:
            log.not_run(case.text, next((answer["failed"] for answer in answers if "failed" in answer), "no answer"))
    return log


def _inputs(entry: LayoutEntry, function: AiterFunction) -> Iterator[tuple[tuple[int, int, int], str]]:
    if entry.unit == "group":
        yield from ((shape, dtype) for shape in _SCALE_SHAPES for dtype in _SCALES)
        yield from ((shape, "uint8") for shape in _PADDED_SCALES)
        return
    sizes = function.item_sizes or (1, 2)
    dtypes = (*(_BYTES if 1 in sizes else ()), *(_HALVES if 2 in sizes else ()))
    yield from ((shape, dtype) for shape in _WEIGHT_SHAPES for dtype in dtypes)


def _compare(log: ClaimLog, source: AiterSource, case: ByteCase, answer: dict[str, Any]) -> None:
    function = f"{case.function.module}.{case.function.name}"
    if "missing" in answer:
        log.not_run(f"layouts.{case.entry.id}: {function}", f"this AITER has none ({answer['missing']})")
        return
    tensor = known_bytes(case.shape, getattr(torch, case.dtype))
    if case.function.flat:
        tensor = tensor.flatten(0, 1)
    padded = not _fits(case.entry.layout(), case.shape)
    ours = _lay_out(tensor, case, SCALE_FILL if padded else None)
    if "error" in answer or ours is None:
        _refused(log, case, answer, ours)
        return
    place = case.function.module.replace(".", "/") + ".py" + (f":{answer['line']}" if answer["line"] else "")
    wrong = _first_difference(ours, tensor, case, answer, padded)
    if wrong is None:
        log.agree()
    else:
        log.disagree(
            f"layouts.{case.entry.id}.pattern", case.text, f"{case.entry.pattern}: {wrong[0]}", wrong[1], place
        )


def _refused(log: ClaimLog, case: ByteCase, answer: dict[str, Any], ours: torch.Tensor | None) -> None:
    """Count what both refuse; what one of them takes says nothing about bytes."""
    if "error" in answer and ours is None:
        log.agree()
    elif "error" in answer:
        log.not_run(case.text, f"AITER refuses the shape or dtype: {answer['error']}")
    else:
        log.not_run(case.text, "AITER takes this shape; the layout does not divide it")


def _fits(layout: Layout, shape: tuple[int, int, int]) -> bool:
    try:
        layout.bind(*shape)
    except LayoutError:
        return False
    return True


def _lay_out(tensor: torch.Tensor, case: ByteCase, fill: int | None) -> torch.Tensor | None:
    """Return our bytes, flat; None where the layout does not take the tensor."""
    experts = case.shape[0] if case.function.flat else None
    if fill is not None and case.entry.unit != "group":
        return None
    try:
        made = apply_layout(tensor, case.entry.layout(), experts=experts, fill=fill, backend="native")
    except LayoutError:
        return None
    return made.contiguous().view(torch.uint8).flatten()


def _first_difference(
    ours: torch.Tensor, tensor: torch.Tensor, case: ByteCase, answer: dict[str, Any], padded: bool
) -> tuple[str, str] | None:
    """Return our byte and AITER's at the first place where they differ, of those that AITER defines."""
    theirs = _unpacked(answer["bytes"])
    if theirs.numel() < ours.numel():
        return f"{ours.numel()} bytes", f"{theirs.numel()} bytes"
    theirs = theirs[: ours.numel()]
    defined = torch.ones_like(ours, dtype=torch.bool)
    if answer["unwritten"] is not None:
        defined = ~_unpacked(answer["unwritten"])[: ours.numel()].bool()
    if padded and (real := _lay_out(torch.ones_like(tensor.view(torch.uint8)), case, 0)) is not None:
        missing = real.bool() & ~defined
        if bool(missing.any()):
            at = int(missing.nonzero()[0])
            return f"byte {at} is of the tensor", f"byte {at} is never written"
    differs = (ours != theirs) & defined
    if not bool(differs.any()):
        return None
    at = int(differs.nonzero()[0])
    return f"byte {at} is 0x{int(ours[at]):02x}", f"byte {at} is 0x{int(theirs[at]):02x}, {int(differs.sum())} differ"


def _unpacked(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(zlib.decompress(base64.b64decode(text))), dtype=torch.uint8)
