"""Kernel charts of the observed call and the decided one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from preshuffle.api.answers import GroupView
from preshuffle.api.pages.pictures.kernel_picture import kernels_svg
from preshuffle.registry import Registry
from preshuffle.registry.loading import Book, known_lines, read_lines, reads_of
from preshuffle.registry.resolve import why_not_predicted
from preshuffle.registry.values.decision import KernelBucket


@dataclass(frozen=True, slots=True)
class KernelChart:
    """One chart, with the buckets of its table.

    Attributes:
        caption: whose call it is.
        known: how it is known what the kernels read, in lines.
    """

    ident: str
    caption: str
    buckets: tuple[KernelBucket, ...]
    svg: Markup
    known: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all buckets, each once."""
        return tuple(dict.fromkeys(note for bucket in self.buckets for note in bucket.notes))


def kernel_charts(group: GroupView, registry: Registry, ident: str) -> Iterator[KernelChart]:
    """Yield the chart of the reported call.

    And of the decided one, where its kernels are others.
    """
    ran = registry.kernels_of(group.observation)
    decided = group.decision.kernels if group.decision else ()
    same = bool(ran) and _without_notes(ran) == _without_notes(decided)
    if ran:
        more = "; the decided call gets the same" if same else ""
        caption = f"As observed: the kernels of the call that was reported{more}."
        yield _chart(f"{ident}-observed", caption, ran, registry.book)
    if decided and not same:
        text = "As decided: the kernels of the call that the registry decides"
        known = (
            ""
            if ran or not group.observation.applied.tensors
            else "; too little of the call was reported to tell its own"
        )
        yield _chart(ident, f"{text}{known}.", decided, registry.book)


def why_no_kernels(group: GroupView, registry: Registry) -> str:
    """Say why no kernels are predicted for the decided call.

    Empty where some are.
    """
    if group.decision is None or group.decision.kernels:
        return ""
    return why_not_predicted(group.observation.query, group.decision.call, registry.book)[0]


def backend_lines(group: GroupView, registry: Registry) -> tuple[str, ...]:
    """Return how it is known what a backend's kernels read.

    Nothing for AITER's.
    """
    decision = group.decision
    if decision is None:
        return ()
    lines = read_lines(registry.book, decision.reads)
    return tuple(f"kernels of {decision.call.backend} read {line}" for line in lines)


def _without_notes(buckets: Sequence[KernelBucket]) -> list[KernelBucket]:
    return [bucket.altered(notes=()) for bucket in buckets]


def _chart(ident: str, caption: str, buckets: tuple[KernelBucket, ...], book: Book) -> KernelChart:
    known = known_lines(book, reads_of(stage for bucket in buckets for stage in (bucket.stage1, bucket.stage2)))
    return KernelChart(ident, caption, buckets, Markup(kernels_svg(buckets, ident)), known)
