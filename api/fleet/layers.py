"""Layer ranges of a group, written as ``"0-2,5"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field

from preshuffle.registry.base.ranges import range_text

PATTERN: Final = r"^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$"


class Span(NamedTuple):
    """Inclusive range of layers."""

    first: int
    last: int

    def __str__(self) -> str:
        """Return ``first-last``, or the single layer."""
        return range_text(self.first, self.last)


def parse_layers(text: str) -> tuple[Span, ...]:
    """Parse a list of layers into sorted spans.

    Raises:
        ValueError: not of this form, a span that runs backwards, or a layer listed twice.

    Example:
        >>> parse_layers("5,0-2")
        (Span(first=0, last=2), Span(first=5, last=5))
    """
    if not re.fullmatch(PATTERN[1:-1], text):
        raise ValueError(f"{text!r} is not a list of layers; valid: numbers and ranges as in '0-2,5'")
    spans: list[Span] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        span = Span(int(first), int(last or first))
        if span.last < span.first:
            raise ValueError(f"{part!r} runs backwards; valid: {span.last}-{span.first}")
        spans.append(span)
    overlap = first_overlap([spans])
    if overlap:
        raise ValueError(f"layer {overlap[0]} is listed twice in {text!r}")
    return tuple(sorted(spans))


def first_overlap(groups: Sequence[Sequence[Span]]) -> tuple[int, int, int] | None:
    """Return ``(layer, group, group)`` of the first shared layer, or None."""
    spans = sorted((span, index) for index, group in enumerate(groups) for span in group)
    last, owner = -1, -1
    for span, index in spans:
        if span.first <= last:
            return span.first, owner, index
        last, owner = span.last, index
    return None


def _validated(text: str) -> str:
    parse_layers(text)
    return text


Layers = Annotated[str, Field(max_length=4096, pattern=PATTERN, examples=["0-2,5", "0-35"]), AfterValidator(_validated)]
