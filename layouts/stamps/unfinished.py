"""Stamp of bytes that have no decision while they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from preshuffle.layouts.stamps.mapped import is_shared_file
from preshuffle.layouts.stamps.stamp import drop_stamp, put_stamp
from preshuffle.layouts.stamps.stamp_fields import Stamp
from preshuffle.registry import Layout


@contextmanager
def unfinished(result: torch.Tensor, layout: Layout) -> Iterator[None]:
    """Stamp bytes as broken while they are written.

    Only where others would find the stamp (a mapped file), or where writing fails; there is no stamp afterwards.
    """
    in_file = is_shared_file(result)
    if in_file:
        put_stamp(result, _half_done(result, layout))
    else:
        drop_stamp(result)
    try:
        yield
    except BaseException:
        put_stamp(result, _half_done(result, layout))
        raise
    if in_file:
        drop_stamp(result)


def _half_done(result: torch.Tensor, layout: Layout) -> Stamp:
    size = (result.numel() * result.element_size(),)
    return Stamp(
        recipe="apply_layout", decision_digest="", role=None, layout=layout.id, layout_line=layout.line,
        shape=size, source_shape=size, physical_shape=size, pad=(0, 0), dtype="uint8", source_dtype=torch.uint8,
        source_order=None, order=None, fill=0, padded_source=True, is_shuffled=False, state="broken",
    )  # fmt: skip
