"""Entries of section ``fusions``: expert slots and columns that engines add."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from preshuffle.registry.base.frozen import Frozen


class FusionEntry(Frozen):
    """How an engine passes shared experts and masks to AITER.

    Attributes:
        engine: whose behaviour it is.
        masked_column: when ``topk_ids`` gets one column more under expert parallelism: always, only where shared
            experts run as experts of the layer, or never.
        because: how that is known.
    """

    id: str
    engine: str
    masked_column: Literal["always", "fused", "never"]
    because: Annotated[str, Field(min_length=1)]
    evidence: Annotated[tuple[str, ...], Field(min_length=1)]
