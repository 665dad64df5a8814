"""Chart of kernels by token count, as SVG.

Each lane shows one property (activations, stage 1, stage 2, tuned); equal neighbours are one bar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Final, Literal

from preshuffle.api.pages.formats import number
from preshuffle.api.pages.pictures.svg import svg, text_at, texts
from preshuffle.registry.values.decision import KernelBucket

_NAMES: Final = 88
"""Width of the column with the lanes' names, in SVG units."""
_HEAD: Final = 24
_LANE: Final = 28
_WIDTHS: Final = (40, 104)
"""The narrowest and the widest column of one token count."""
_ACROSS: Final = 728
_LETTER: Final = 6.5
_COLOURS: Final = 6
Stage = Literal["stage1", "stage2"]
_TUNED: Final = {True: ("tuned", "good"), False: ("untuned", "warn"), None: ("unknown", "dim")}


@dataclass(frozen=True, slots=True)
class LaneValue:
    """Value of a lane at one token count.

    Attributes:
        label: short, drawn.
        detail: its tooltip.
        tint: a class of the style sheet.
    """

    label: str
    detail: str
    tint: str


_Lane = Callable[[KernelBucket], LaneValue]


def kernels_svg(buckets: Sequence[KernelBucket], ident: str) -> str:
    """Draw the kernels of a decision; ``ident`` makes ids unique."""
    width = min(max(_ACROSS / max(len(buckets), 1), _WIDTHS[0]), _WIDTHS[1])
    lanes = _lanes(buckets)
    tops = [_HEAD + row * _LANE for row in range(len(lanes))]
    counts = ((_NAMES + (index + 0.5) * width, 15, number(bucket.tokens)) for index, bucket in enumerate(buckets))
    names = ((_NAMES - 8, y + 16, name) for y, name in zip(tops, lanes, strict=True))
    parts = [texts("label end", [(_NAMES - 8, 15, "tokens"), *names]), texts("label mid", counts)]
    for y, lane in zip(tops, lanes.values(), strict=True):
        start = 0
        for value, group in groupby(map(lane, buckets)):
            length = len(list(group))
            parts.append(_bar(value, _NAMES + start * width, y, length * width - 2))
            start += length
    size = (_NAMES + len(buckets) * width, _HEAD + len(lanes) * _LANE)
    return svg(f"{ident}-kernels", size, "Kernels by token count", kernels_words(buckets), parts)


def kernels_words(buckets: Sequence[KernelBucket]) -> str:
    """Describe the chart in words."""
    sentences = []
    for words, group in groupby(buckets, _words):
        counts = [bucket.tokens for bucket in group]
        span = number(counts[0]) if len(counts) == 1 else f"{number(counts[0])} to {number(counts[-1])}"
        sentences.append(f"{span} {'token' if counts == [1] else 'tokens'}: {words}.")
    return " ".join(sentences)


def _words(bucket: KernelBucket) -> str:
    if bucket.error:
        return f"AITER raises {bucket.error}"
    stages = [stage.family or stage.func for stage in (bucket.stage1, bucket.stage2) if stage is not None]
    tuned = {True: "tuned", False: "untuned", None: "tuned or not is unknown"}[bucket.tuned]
    return f"{' then '.join(stages)} on {bucket.activation_dtype or 'unknown'} activations, {tuned}"


def _lanes(buckets: Sequence[KernelBucket]) -> dict[str, _Lane]:
    stages = [stage for bucket in buckets for stage in (bucket.stage1, bucket.stage2) if stage is not None]
    families = dict.fromkeys(stage.family or stage.func for stage in stages)
    tints = {family: f"f{index % _COLOURS}" for index, family in enumerate(families)}

    def stage(which: Stage) -> _Lane:
        def value_at(bucket: KernelBucket) -> LaneValue:
            if bucket.error:
                return LaneValue("raises", bucket.error, "bad")
            kernel = getattr(bucket, which)
            if kernel is None:
                return LaneValue("in stage 1", "both stages are one kernel", "dim")
            family = kernel.family or kernel.func
            return LaneValue(family, kernel.kernel or kernel.func, tints[family])

        return value_at

    return {"activations": _activations, "stage 1": stage("stage1"), "stage 2": stage("stage2"), "tuned": _tuned}


def _activations(bucket: KernelBucket) -> LaneValue:
    dtype = bucket.activation_dtype
    return LaneValue(
        dtype or "unknown", f"activations are {dtype or 'of an unknown dtype'}", "plain" if dtype else "dim"
    )


def _tuned(bucket: KernelBucket) -> LaneValue:
    label, tint = _TUNED[bucket.tuned]
    return LaneValue(label, bucket.source or ("no kernel table is loaded" if bucket.tuned is None else label), tint)


def _bar(value: LaneValue, x: float, y: float, width: float) -> str:
    room = max(int((width - 8) / _LETTER), 1)
    label = value.label if len(value.label) <= room else f"{value.label[: room - 1]}…"
    title = value.label if value.detail == value.label else f"{value.label}: {value.detail}"
    rect = (
        f'<rect class="bar {value.tint}" x="{x:g}" y="{y:g}" width="{width:g}" height="{_LANE - 4}">'
        f"<title>{escape(title)}</title></rect>"
    )
    return rect + text_at(x + width / 2, y + 16, label, "bar-label mid")
