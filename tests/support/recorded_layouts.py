"""Recorded calls of AITER's layout functions, with SHA-256 digests of their results; newer than the wheel in part.

The file lies beside the checkout, not in it: tests skip where it is missing. Each line is one call on a buffer whose
byte i is the top byte of i * 2654435761 mod 2**32; `layout` is ours that makes the same bytes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import pad

RECORDED_FILE: Final = Path(__file__).resolve().parents[3] / "shared" / "oracle" / "layouts.jsonl"
DTYPES: Final = {
    "uint8": torch.uint8,
    "i8": torch.int8,
    "fp4x2": torch.float4_e2m1fn_x2,
    "e8m0": torch.float8_e8m0fnu,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}
ONE: Final = 0x7F  # e8m0 1.0


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call whose result is one of our layouts."""

    line: dict[str, Any]

    def __str__(self) -> str:
        return "-".join(str(self.line[key]) for key in ("id", "source", "function", "dtype", "layout"))

    @property
    def layout(self) -> str:
        return str(self.line["layout"])

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
        return self._padded(tensor) if self.line["padded"] else tensor

    @property
    def _k_first(self) -> bool:
        """Whether the function took [experts, K, rows]: those of gfx1250, and those that return a transposed view."""
        gfx1250 = self.line["arch"] == "gfx1250" and self.line["input_view"] is not None
        return gfx1250 or not self.line["out_contiguous"]

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
    """Return the calls that succeeded and made one of our layouts."""
    if not RECORDED_FILE.exists():
        return []
    lines = [json.loads(line) for line in RECORDED_FILE.read_text().splitlines()]
    return [RecordedCall(line) for line in lines if line.get("layout") is not None]
