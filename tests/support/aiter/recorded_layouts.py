"""Recorded calls of AITER's layout functions, with SHA-256 digests of their results; newer than the wheel in part.

The file lies beside the checkout, not in it: tests skip where it is missing. Each line is one call on a buffer whose
byte i is the top byte of i * 2654435761 mod 2**32; `layout` is ours that makes the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from preshuffle.layouts.loader.single import layout_of
from preshuffle.registry import Layout

RECORDED_FILE: Final = Path(__file__).resolve().parents[4] / "shared" / "oracle" / "layouts.jsonl"
DTYPES: Final = {
    "uint8": torch.uint8,
    "i8": torch.int8,
    "fp4x2": torch.float4_e2m1fn_x2,
    "e8m0": torch.float8_e8m0fnu,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}
ONE: Final = 0x7F  # e8m0 1.0

NOT_LAYOUTS: Final = {
    107: "its view takes the bytes of two rows for one, on two experts as if they were one",
    338: "changes values, two of them become one byte",
    341: "changes values, two of them become one byte",
    371: "an inverse, not there on gfx1250; here every layout has one",
}
"""Recorded calls that put no tensor into a layout, and why."""

WIDER: Final = {
    62: "K of 32 bytes is a whole tile; AITER counts 32 elements",
    112: "K of 32 bytes is a whole tile; AITER counts 32 elements",
    65: "two dimensions are one expert",
    115: "two dimensions are one expert",
    127: "K fits already: there is nothing to pad",
    222: "scales may come in three dimensions",
    266: "scales may come in three dimensions",
    285: "scales may come in three dimensions",
    287: "two dimensions without a number of experts are one expert",
    302: "two dimensions without a number of experts are one expert",
    347: "the size of a group is the registry's business, bytes are paired alike",
    352: "what an arch reads is the registry's business",
    354: "what an arch reads is the registry's business",
    366: "on gfx1250 it is gurow16",
    377: "K fits already: there is nothing to pad",
}
"""Recorded calls that AITER refuses and we do not, and why: our bytes there are a layout like any other."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call whose result is one of our layouts."""

    line: dict[str, Any]

    def __str__(self) -> str:
        return "-".join(str(self.line[key]) for key in ("id", "source", "function", "dtype"))

    @property
    def layout(self) -> str:
        return str(self.line["layout"])

    @property
    def fails(self) -> bool:
        return "error" in self.line

    def our_layout(self) -> Layout | None:
        """Return the layout that the function stands for; None where it is no permutation of bytes."""
        if self.line.get("layout") is not None:
            return layout_of(self.layout)
        if self.line["id"] in NOT_LAYOUTS:
            return None
        call = {**self.line["kwargs"], "arch": self.line["arch"], "shape": self.line["shape"]}
        return _meant(self.line["function"], call, self.dtype.itemsize)

    @property
    def experts(self) -> int | None:
        experts: int | None = self.line["kwargs"].get("experts_cnt")
        return experts

    @property
    def digest(self) -> str:
        """Of the bytes in memory order, bytes that AITER leaves undefined set to 0."""
        key = "sha256_zeroed" if self.line["unwritten_bytes"] else "sha256"
        return str(self.line[key if self.line["out_contiguous"] else "sha256_storage"])

    @property
    def dtype(self) -> torch.dtype:
        if self.line["dtype"] == "fp8":
            return torch.float8_e4m3fnuz if self.line["arch"] == "gfx942" else torch.float8_e4m3fn
        return DTYPES[self.line["dtype"]]

    def laid_out_input(self) -> Tensor:
        """Return the tensor whose `layout` has the recorded digest: padded, and with K last."""
        tensor = self._argument()
        if self._k_first:
            tensor = tensor.transpose(-1, -2)
        return self._padded(tensor) if self.line.get("padded") else tensor

    @property
    def _k_first(self) -> bool:
        """Whether the function took [experts, K, rows]: those of gfx1250, and those that return a transposed view."""
        if self.line["function"] == "shuffle_scale_for_int4":
            return True
        gfx1250 = self.line["arch"] == "gfx1250" and self.line["input_view"] is not None
        return gfx1250 or not self.line.get("out_contiguous", True)

    def _argument(self) -> Tensor:
        *outer, columns = self.line["shape"]
        shape = (*outer, columns * self.dtype.itemsize)
        index = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
        content = (index * 2654435761 % 2**32 >> 24).to(torch.uint8).view(shape).view(self.dtype)
        return content if self.line["input_view"] is None else content.transpose(-1, -2)

    def _padded(self, tensor: Tensor) -> Tensor:
        zero = self.line["unwritten_bytes"] or "weight" in self.line["function"]
        content = tensor.contiguous().view(torch.uint8)
        *_, rows, columns = self.line["out_shape"]
        missing = (0, columns * self.dtype.itemsize - content.shape[-1], 0, rows - content.shape[-2])
        return pad(content, missing, value=0 if zero else ONE).view(self.dtype)


def recorded_calls() -> list[RecordedCall]:
    """Return all recorded calls, failed ones among them."""
    if not RECORDED_FILE.exists():
        return []
    return [RecordedCall(json.loads(line)) for line in RECORDED_FILE.read_text().splitlines()]


def _tiles(rows: int, k: int, *, multiple: int, gate_up: bool = False) -> Layout:
    """The plain kind of layout that most functions make: tiles of some rows by some bytes."""
    left, right = ("(g nt n{})", "nt g kt") if gate_up else ("(nt n{})", "nt kt")
    return Layout.of("recorded", f"e {left.format(rows)} (kt k{k}) -> e {right} n{rows} k{k}", "byte", multiple)


def _meant(function: str, call: Mapping[str, Any], item: int) -> Layout:
    """The layout of a call that the file names none for, from what is known of the function."""
    interleaved = bool(call.get("gate_up"))
    if function in ("shuffle_weight_a16w4", "moe_shuffle_weight") and item > 1:  # they count elements
        return _tiles(16, 16 * item, multiple=64 * item, gate_up=interleaved)
    if function == "shuffle_weight_NK":
        lane = call["inst_K"] // (64 // call["inst_N"]) * (2 if call.get("use_int4") else 1)
        return _tiles(call["inst_N"], lane, multiple=call["inst_K"])
    if function == "shuffle_weight" and call.get("use_int4"):
        return _tiles(16, 32, multiple=32)
    if function == "shuffle_mxfp8fp4_a":
        return _tiles(2, 128, multiple=128)
    if function == "shuffle_scale_gemm":
        if call["arch"] == "gfx1250":
            return _tiles(call["preshuffle_factor"], call["scale_kwidth"], multiple=call["scale_kwidth"])
        rows, k = call["preshuffle_factor"] // 2, call["scale_kwidth"] // 2
        line = f"e (nt a2 r{rows}) (kt b2 k{k}) -> e nt kt k{k} r{rows} b2 a2"
        return Layout.of("recorded", line, "group")
    if function == "shuffle_scale_batched":
        width = call.get("scale_k_width", min(16, call["shape"][-1]))
        return Layout.of("recorded", f"e (nt r4 r32) (kt k{width}) -> e nt kt r32 r4 k{width}", "group")
    gfx1250 = call["arch"] == "gfx1250"
    known = {
        "shuffle_weight": "gui16" if call.get("is_guinterleave") and not gfx1250 else "sep16",
        "shuffle_weight_a16w4": "gui16" if interleaved else "sep16",
        "moe_shuffle_weight": "gurow16" if gfx1250 else "gui16",
        "shuffle_weight_f4": "sep16",
        "shuffle_mxfp8fp4_b": "sep16",
        "shuffle_weight_gfx1250": "sep16",
        "interleave_gate_up_rows": "gurow",
        "e8m0_shuffle": "e8",
        "shuffle_scale_a16w4": "e8_gui16",
        "shuffle_scale": "e8_gui16",
        "shuffle_scale_n32k4": "n32k4",
        "moe_shuffle_scale": "n32k4_gurow" if interleaved else "n32k4",
        "shuffle_mxfp8fp4_scale": "n32k4",
        "shuffle_scale_f4": "n32k8" if call.get("intype") == 8 else "n32k4",
        "shuffle_scale_moe": "n32k8",
        "shuffle_scale_for_int4": "i4_scale_pairs",
    }
    return layout_of(known[function])
