"""Marks that operators set on deployments: labels, owner, link, silence, acknowledgement."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.limits import at_most
from preshuffle.registry.values.input import Input

MAX_LABELS: Final = 32
LabelKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$", examples=["team"])]
LabelValue = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Labels = Annotated[FrozenDict[LabelKey, LabelValue], Field(max_length=MAX_LABELS), at_most(MAX_LABELS)]
Line = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Link = Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s\x00-\x1f\x7f]+$")]
Note = Annotated[str, Field(max_length=400, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]


class Description(Input):
    """Labels, owner and link; what is left out stays.

    Attributes:
        labels: all of them; an empty map removes them.
        owner: who looks after it; null removes it.
        link: to its dashboard or runbook, ``http`` or ``https``; null removes it.
    """

    labels: Labels = Field(default_factory=FrozenDict)
    owner: Line | None = None
    link: Link | None = None


class SilenceRequest(Input):
    """Body of ``PUT /v1/deployments/{name}/silence``.

    Attributes:
        until: when the silence ends (RFC 3339, with an offset); within 366 days.
    """

    until: AwareDatetime
    note: Note = ""


class AcknowledgeRequest(Input):
    """Body of ``PUT /v1/deployments/{name}/acknowledgement``."""

    note: Note = ""


class Silence(Frozen):
    """Silence of a deployment: it counts in no alert until then."""

    by: str
    at: datetime
    until: datetime
    note: str


class Acknowledgement(Frozen):
    """Acknowledgement of a deployment's state; it ends when the state changes."""

    by: str
    at: datetime
    note: str


class Marks(Frozen):
    """What operators said of a deployment."""

    labels: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    owner: str | None = None
    link: str | None = None
    silence: Silence | None = Field(default=None, description="null where none lasts")
    acknowledgement: Acknowledgement | None = Field(default=None, description="null where the state changed since")
