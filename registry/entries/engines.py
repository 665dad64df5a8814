"""Entries of section ``engines``: inference engines and their known releases."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, Version
from preshuffle.registry.base.versions import version_key


class EngineEntry(Frozen):
    """An inference engine and the releases whose behaviour is known.

    Attributes:
        id: the name that queries and rules use.
        first: the oldest release that was read as a whole; each rule has its own (``since``), which may be older.
        newest: the newest one; later releases are answered as this one.
        aiter: the AITER that the newest release is written for; None where it names none.
        module: the package as Python imports it.
        distribution: its name among installed packages.
        aiter_before: the AITER that earlier releases are written for, by the first release that is.
    """

    id: str
    title: Annotated[str, Field(min_length=1)]
    first: Version
    newest: Version
    module: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    distribution: str | None = None
    aiter: Version | None = None
    aiter_before: FrozenDict[Version, Version] = Field(default_factory=FrozenDict)
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if version_key(self.first) > version_key(self.newest):
            raise PlacedError(("first",), f"first known version {self.first} is newer than the newest, {self.newest}")
        return self
