"""Random live tensors for `identify`: laid out, or spoilt in one way, by torch operations and copy plans only.

Nothing here uses the closed-form addresses by which `identify` looks at them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from preshuffle.layouts import Identification, apply_layout, identify
from preshuffle.layouts.forensics.source import TensorFile
from preshuffle.registry import Registry
from preshuffle.registry.algebra.shard import cut

GROUP: Final = 32
LAYOUTS: Final = Registry.default().book.layouts
WEIGHT: Final = tuple(name for name, layout in LAYOUTS.items() if layout.unit == "byte")
SCALE: Final = tuple(name for name, layout in LAYOUTS.items() if layout.unit == "group")
ROLES: Final = ("w13_weight", "w2_weight", "w13_weight_scale", "w2_weight_scale")
DTYPES: Final = (torch.uint8, torch.uint8, torch.float8_e4m3fn, torch.bfloat16)
CORRUPTIONS: Final = (
    "none",
    "plain, padded",
    "applied twice",
    "two layouts",
    "wrong row order",
    "rows left alternating",
    "up before gate",
    "pads at the tail",
    "pads first",
    "pad of K first",
    "wrong rank",
    "flat copy",
    "counted in elements",
    "some experts raw",
    "some experts laid out otherwise",
    "unknown permutation",
    "half of it raw",
    "all zero",
    "two byte values",
)
"""What is done to the bytes; the last five have no name, or several."""


@dataclass(frozen=True)
class Case:
    """One pair of tensors, and what is right to say of them.

    Attributes:
        names: any of these is right; empty where no single name is.
        parts: the layout of each expert, where they differ.
    """

    role: Any
    corruption: str
    layout: str
    plain: torch.Tensor
    live: torch.Tensor
    known: dict[str, Any]
    names: tuple[str, ...]
    verdict: str = "identified"
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        shapes = f"{tuple(self.plain.shape)} -> {tuple(self.live.shape)} {self.plain.dtype}"
        return f"{self.corruption}: {self.role} {self.layout} {shapes} {self.known}"

    def run(self, folder: Path | None = None, seed: int = 0) -> Identification:
        """Identify the live bytes, in memory or out of files."""
        if folder is None:
            return identify(self.plain, self.live, role=self.role, seed=seed, **self.known)
        self.write(folder)
        return self.run_files(folder, seed)

    def write(self, folder: Path) -> None:
        """Write both sides."""
        save_file({"x": self.plain}, folder / "plain.safetensors")
        save_file({self.role: self.live}, folder / "live.safetensors")

    def run_files(self, folder: Path, seed: int = 0) -> Identification:
        """Identify the live bytes out of the files that ``write`` wrote."""
        plain = TensorFile.open(folder / "plain.safetensors").tensor("x")
        live = TensorFile.open(folder / "live.safetensors").tensor(self.role)
        return identify(plain, live, role=self.role, seed=seed, **self.known)

    def problem(self, found: Identification) -> str | None:
        """Return what is wrong with an answer."""
        if found.verdict != self.verdict:
            return f"{self}: {found.verdict} ({found.name}), not {self.verdict}"
        if self.names and not {found.name, *found.also} & set(self.names):
            return f"{self}: {found.name} {found.also}, not {self.names}"
        said = [one for one in found.experts for _ in range(one.first, one.last + 1)] if self.parts else []
        for number, (one, wanted) in enumerate(zip(said, self.parts, strict=True)):
            names = {one.name, *one.also, one.layout, *(["plain"] if one.raw else [])}
            if not any(name and name.split(",")[0] == wanted for name in names) or one.last < number:
                return f"{self}: {found.name}, not {self.parts}"
        return None


def draw(seed: int, corruption: str | None = None, role: str | None = None) -> Case:
    """Draw a case."""
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    while True:
        case = _draw(dice, generator, corruption or dice.choice(CORRUPTIONS), role or dice.choice(ROLES))
        if case is not None:
            return case


@dataclass(frozen=True)
class _Sizes:
    """A random layer: `half` rows of gate, K in elements, and how one rank's part is cut and padded."""

    experts: int
    half: int
    k: int
    tp: int
    ep: int
    pad_rows: int
    pad_k: int


def _draw(dice: random.Random, generator: torch.Generator, corruption: str, role: str) -> Case | None:
    scale, w13 = role.endswith("_scale"), role.startswith("w13")
    dtype = torch.uint8 if scale else dice.choice(DTYPES)
    item = dtype.itemsize
    tp, ep = dice.choice((1, 1, 2, 4, 8)), dice.choice((1, 1, 2))
    experts = ep * dice.randint(1, 4)
    unit = 1 if scale else (GROUP // 2 if dtype == torch.uint8 else GROUP)
    cut_size = dice.randint(2 * tp, 24 + 2 * tp)
    other = dice.randint(4, 40) * 16
    half = cut_size * GROUP if w13 else other
    k = cut_size * unit if not w13 else other // (8 if scale else item)
    pad_rows, pad_k = dice.choice((32, 64, 256)), (8 if scale else dice.choice((64, 128)) // item)
    sizes = _Sizes(experts, half, max(k, 1), tp, ep, pad_rows, pad_k)
    order = dice.choice(("GGUU", "GUGU")) if w13 else None
    layout = dice.choice(SCALE if scale else WEIGHT)
    try:
        pieces = cut(half if w13 else k, tp, GROUP if w13 else unit)
    except ValueError:
        return None
    plain = _content(corruption, (experts, (2 if w13 else 1) * half, sizes.k), dtype, generator)
    rank, ep_rank = dice.randrange(tp), dice.randrange(ep)
    known: dict[str, Any] = {"tp": tp, "ep": ep, "gate_up_order": order}
    if corruption == "wrong rank" or dice.random() < 0.7:
        known |= {"tp_rank": rank, "ep_rank": ep_rank}
    maker = _Maker(role, corruption, layout, plain, sizes, order or "GGUU", w13, dice)
    if corruption == "wrong rank":
        if tp * ep == 1:
            return None
        rank, ep_rank = dice.choice([(r, e) for r in range(tp) for e in range(ep) if (r, e) != (rank, ep_rank)])
    live = maker.live(pieces[rank].start, pieces[rank].stop, ep_rank, generator)
    if live is None:
        return None
    names = tuple(f"{name}{maker.rank_text(rank, ep_rank)}" for name in maker.names())
    verdicts = {"all zero": "ambiguous", "unknown permutation": "unknown", "half of it raw": "unknown"}
    verdict = "mixed" if maker.parts else verdicts.get(corruption, "identified")
    if verdict != "identified":
        names = ()
    return Case(role, corruption, layout, plain, live, known, names, verdict, tuple(maker.parts))


def _content(
    corruption: str, shape: tuple[int, int, int], dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    width = shape[2] * dtype.itemsize
    if corruption == "all zero":
        data = torch.zeros(*shape[:2], width, dtype=torch.uint8)
    elif corruption == "two byte values":
        data = torch.randint(0, 2, (*shape[:2], width), generator=generator).to(torch.uint8) * 17
    else:
        low, high = (0, 256) if torch.rand((), generator=generator) < 0.7 else (118, 131)
        data = torch.randint(low, high, (*shape[:2], width), generator=generator).to(torch.uint8)
    return data.view(dtype)


@dataclass
class _Maker:
    """Makes the live tensor as a loader would, one corruption included."""

    role: str
    corruption: str
    layout: str
    plain: torch.Tensor
    sizes: _Sizes
    order: str
    w13: bool
    dice: random.Random
    second: str = ""
    parts: list[str] = field(default_factory=list)

    def live(self, start: int, stop: int, ep_rank: int, generator: torch.Generator) -> torch.Tensor | None:
        held = self.sizes.experts // self.sizes.ep
        part = self.plain[ep_rank * held : (ep_rank + 1) * held]
        read = self.order
        if self.corruption == "wrong row order":
            if not self.w13:
                return None
            read = "GUGU" if self.order == "GGUU" else "GGUU"
        halves = self._halves(part, read, start, stop)
        if halves is None:
            return None
        physical = self._pad(halves)
        return None if physical is None else self._lay_out(physical, halves, generator)

    def _halves(self, part: torch.Tensor, read: str, start: int, stop: int) -> torch.Tensor | None:
        """Return `[experts, halves, rows, K]`."""
        if not self.w13:
            needs_w13 = self.corruption in ("rows left alternating", "up before gate", "pads at the tail")
            return None if needs_w13 else part[:, None, :, start:stop]
        split: torch.Tensor = (
            part.unflatten(1, (-1, 2)).transpose(1, 2) if read == "GUGU" else part.unflatten(1, (2, -1))
        )
        rows = split[:, :, start:stop]
        return rows.flip(1) if self.corruption == "up before gate" else rows

    def _pad(self, halves: torch.Tensor) -> torch.Tensor | None:
        """Return the physical `[experts, rows, K]` before the layout."""
        experts, count, rows, k = halves.shape
        tall, wide = (-(-size // to) * to for size, to in ((rows, self.sizes.pad_rows), (k, self.sizes.pad_k)))
        empty = torch.zeros(experts, count, tall, wide * halves.element_size(), dtype=torch.uint8).view(halves.dtype)
        if self.corruption == "pad of K first":
            if wide == k:
                return None
            empty[:, :, :rows, wide - k :] = halves
        elif self.corruption == "pads first":
            if tall == rows:
                return None
            empty[:, :, tall - rows :, :k] = halves
        elif self.corruption == "pads at the tail":
            if tall == rows or count == 1:
                return None
            flat = empty.flatten(1, 2)
            flat[:, : count * rows, :k] = halves.reshape(experts, count * rows, k)
            return flat
        elif self.corruption == "flat copy":
            if (tall, wide) == (rows, k):
                return None
            flat = empty.view(torch.uint8).view(-1)
            data = halves.contiguous().view(torch.uint8).view(-1)
            flat[: data.numel()] = data
        else:
            empty[:, :, :rows, :k] = halves
        if self.corruption == "rows left alternating":
            return empty.transpose(1, 2).flatten(1, 2)
        return empty.flatten(1, 2)

    def _lay_out(self, physical: torch.Tensor, halves: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        physical = physical.contiguous()
        if self.corruption in ("plain, padded", "flat copy"):
            return physical
        try:
            if self.corruption == "counted in elements":
                return self._in_elements(physical)
            laid = apply_layout(physical, self.layout)
            if torch.equal(laid.view(torch.uint8), physical.view(torch.uint8)) and bool(
                physical.view(torch.uint8).any()
            ):
                return None  # a layout of one tile may change nothing
            self.second = self.layout
            if self.corruption == "two layouts":
                names = SCALE if self.role.endswith("_scale") else WEIGHT
                self.second = self.dice.choice([name for name in names if name != self.layout])
            if self.corruption in ("applied twice", "two layouts"):
                second = apply_layout(laid, self.second)
                return None if torch.equal(second.view(torch.uint8), laid.view(torch.uint8)) else second
        except ValueError:
            return None
        if self.corruption == "unknown permutation":
            data = laid.view(torch.uint8).view(-1, 16 if laid.numel() % 16 == 0 else 1)
            return data[torch.randperm(len(data), generator=generator)].view(-1).view(laid.dtype).view(laid.shape)
        if self.corruption.startswith("some experts"):
            return self._mixed(laid, physical)
        if self.corruption == "half of it raw":
            laid[:, ::2] = physical[:, ::2]
        return laid

    def _mixed(self, laid: torch.Tensor, physical: torch.Tensor) -> torch.Tensor | None:
        """Experts of which some are raw, or lie as another layout has them."""
        held = len(physical)
        if held < 2 or laid.shape != physical.shape or held * laid[0].numel() != laid.numel():
            return None
        names = SCALE if self.role.endswith("_scale") else WEIGHT
        self.second = "plain"
        if self.corruption == "some experts laid out otherwise":
            self.second = self.dice.choice([name for name in names if name != self.layout])
        other = physical if self.second == "plain" else apply_layout(physical, self.second)
        if other.shape != laid.shape:
            return None
        chosen = self.dice.sample(range(held), self.dice.randint(1, held - 1))
        for expert in range(held):
            if torch.equal(other[expert].view(torch.uint8), laid[expert].view(torch.uint8)):
                return None
            if expert in chosen:
                laid[expert] = other[expert]
        self.parts = [self.second if expert in chosen else self.layout for expert in range(held)]
        return laid

    def _in_elements(self, physical: torch.Tensor) -> torch.Tensor | None:
        """A layout that counts 2-byte elements as if they were bytes: what AITER's gate/up functions do to bf16."""
        if physical.element_size() != 2:
            return None
        low, high = physical.view(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
        pairs = [apply_layout(part.contiguous(), self.layout) for part in (low, high)]
        return torch.stack(pairs, dim=-1).flatten(-2).view(physical.dtype)

    def names(self) -> list[str]:
        """Return what the answer may call it (before the rank)."""
        base = {
            "plain, padded": "plain",
            "flat copy": "plain",
            "applied twice": f"{self.layout} applied twice",
            "two layouts": f"{self.layout}, then {self.second} on top",
            "counted in elements": f"{self.layout} counted in elements of 2 bytes",
        }.get(self.corruption, self.layout)
        other = "GUGU" if self.order == "GGUU" else "GGUU"
        tails = {
            "wrong row order": [f"rows read as {other} though the checkpoint's are {self.order}"],
            "rows left alternating": ["rows left alternating", f"rows read as {self.order} and alternated"],
            "up before gate": ["up before gate"],
            "pads at the tail": ["pad rows all at the tail instead of behind each half"],
            "pads first": ["pad rows before each half", "pad rows before the live rows"],
            "pad of K first": ["the pad of K before the live values"],
            "flat copy": ["copied flat to the beginning of a larger buffer"],
        }.get(self.corruption)
        return [f"{base}, {tail}" for tail in tails] if tails else [base]

    def rank_text(self, tp_rank: int, ep_rank: int) -> str:
        text = f", tp rank {tp_rank} of {self.sizes.tp}" if self.sizes.tp > 1 else ""
        text += f", ep rank {ep_rank} of {self.sizes.ep}" if self.sizes.ep > 1 else ""
        return text + (", not the rank that was expected" if self.corruption == "wrong rank" else "")
