"""Entries of section ``engines``: inference engines and their known releases."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, Version
from preshuffle.registry.base.versions import version_key

MODEL_WORD = "{model}"
"""Word of a launch command that stands for the checkpoint."""
OptionName = Annotated[str, Field(pattern=r"^--?[A-Za-z]")]


class EngineLaunch(Frozen):
    """How an engine is started, and its options for ranks.

    Attributes:
        command: the words of the command line; ``{model}`` stands for the checkpoint.
        tp: the option that takes the number of tensor-parallel ranks.
        dp: the option that takes the number of data-parallel ranks; None where it has none.
        ep: the option of expert parallelism.
        ep_takes_size: whether it takes the number of expert-parallel ranks, among which the option ``tp`` counts; else
            it is a switch, and all ranks share the experts out, none of which is cut.
        over_dp: whether data-parallel ranks share the layer too, beside those that ``tp`` counts; or the option that
            makes them do so.
        quantization: the option that quantizes while loading; None where it has none.
    """

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    tp: OptionName
    dp: OptionName | None = None
    ep: OptionName
    ep_takes_size: bool = False
    over_dp: bool | OptionName = False
    quantization: OptionName | None = None
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_the_model(self) -> Self:
        if self.command.count(MODEL_WORD) != 1:
            raise PlacedError(("command",), f"one word must be {MODEL_WORD}, for the checkpoint")
        return self


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
        launch: how it is started; None where that is not known.
    """

    id: str
    title: Annotated[str, Field(min_length=1)]
    first: Version
    newest: Version
    module: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    distribution: str | None = None
    aiter: Version | None = None
    aiter_before: FrozenDict[Version, Version] = Field(default_factory=FrozenDict)
    launch: EngineLaunch | None = None
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if version_key(self.first) > version_key(self.newest):
            raise PlacedError(("first",), f"first known version {self.first} is newer than the newest, {self.newest}")
        return self
