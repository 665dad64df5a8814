"""Entries of section ``engine_layers``: where live layers keep their facts."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, Version
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.query import Query

Path = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
"""Attributes behind each other, from the layer on; ``method.`` at its beginning is the layer's quantization
method, ``config.`` the engine's configuration."""
_OF_THE_CALLER: Final = ("tokens", "env", "engine", "deployment", "aiter_features")


class LiveFact(Frozen):
    """Where a layer keeps one fact.

    Attributes:
        paths: the first that is there and not None counts.
        times: numbers with which it is multiplied, such as the ranks among which a size was cut.
        plus: numbers that are added, such as fused shared experts.
        words: what the engine's words mean; others are taken as they are.
    """

    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    times: tuple[Path, ...] = ()
    plus: tuple[Path, ...] = ()
    words: FrozenDict[str, str] = Field(default_factory=FrozenDict)


def _fact(value: Any) -> Any:
    if isinstance(value, str):
        return {"paths": [value]}
    return {"paths": value} if isinstance(value, list | tuple) else value


Fact = Annotated[LiveFact, BeforeValidator(_fact, json_schema_input_type=LiveFact | str | tuple[str, ...])]
Facts = FrozenDict[str, Fact]
Word = bool | int | str | None


class MethodFacts(Frozen):
    """What a class of quantization methods says of its layer.

    Attributes:
        classes: names of the method's class or of a base class.
        when: what must stand at which path; None: nothing stands there.
        fields: fields of the query that follow.
        read: fields of the query that it keeps.
        function: signature of the function that the method calls, where it is another than the engine's usual one.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    when: FrozenDict[Path, Word | tuple[Word, ...]] = Field(default_factory=FrozenDict)
    fields: FrozenDict[str, Word] = Field(default_factory=FrozenDict)
    read: Facts = Field(default_factory=FrozenDict)
    function: str | None = None

    @model_validator(mode="after")
    def _fields_are_the_querys(self) -> Self:
        _check_fields("fields", self.fields)
        _check_fields("read", self.read)
        return self


class PipelineFacts(Frozen):
    """Where an engine says which stage of its pipeline a process is.

    Attributes:
        group: function without arguments that returns the group of stages; it may raise where there is none.
        peers: function that returns the group of processes that share the stage's layers.
        rank: a group's attribute with this process's place in it, counted from 0.
        size: its attribute with the number of processes.
    """

    group: Path
    peers: Path
    rank: Path = "rank_in_group"
    size: Path = "world_size"


class ConversionFacts(Frozen):
    """Where an engine converts the weights of loaded layers.

    Attributes:
        versions: releases of the engine that were read to be so; of no other is it known.
        function: method that converts a layer, which is its first argument.
        classes: quantization methods that have it, by module.
        load: function that loads a whole model.
        config: function without arguments that returns the engine's configuration.
        name: what the layer is called, or its number.
        pipeline: which stage of a pipeline the process is; None where the engine has none, or that was not read.
        before: methods that move rows before the conversion, with the path of the layer from their object on.
        replaceable: classes whose function converts weights and does nothing else that the engine needs.
        converters: functions that get a layer and its tensors and return the tensors laid out, in this order; by the
            role of each tensor the name of the argument.
        unset_pads: classes that leave in a buffer's pads what memory held, and zero them in their conversion.
    """

    versions: Annotated[tuple[Version, ...], Field(min_length=1)]
    function: Path = "process_weights_after_loading"
    classes: Annotated[FrozenDict[Path, tuple[str, ...]], Field(min_length=1)]
    load: Path
    config: Path
    name: Fact
    pipeline: PipelineFacts | None = None
    before: FrozenDict[Path, Path] = Field(default_factory=FrozenDict)
    replaceable: tuple[str, ...] = ()
    converters: FrozenDict[Path, FrozenDict[Role, str]] = Field(default_factory=FrozenDict)
    unset_pads: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _replaceable_are_classes(self) -> Self:
        known = [name for names in self.classes.values() for name in names]
        for field in ("replaceable", "unset_pads"):
            for name in getattr(self, field):
                if name not in known:
                    raise PlacedError((field,), f"{name!r} is none of the classes; valid: {', '.join(known)}")
        return self


class EngineLayerEntry(Frozen):
    """Where a class of an engine's layers keeps its facts.

    Attributes:
        engine: whose it is.
        classes: names of the layer's class or of a base class.
        since: the first release that was read to be so.
        fields: fields of the query, by name.
        ranks: the layer's own place among ranks.
        maps: tensors that tell which experts are local, by kind.
        options: options of the engine's command line that the layer or the configuration keeps, by flag.
        method: where its quantization method is.
        methods: what classes of methods say, the most particular first; all that fit count, the first for each field.
        config: what the engine's own configuration says beside it: ``model`` and ``hf_config``.
        function: signature of the function that it calls.
        conversion: where the engine converts its weights; None where that was not read.
    """

    id: str
    title: Annotated[str, Field(min_length=1)]
    engine: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    since: Version | None = None
    fields: Facts
    ranks: FrozenDict[Literal["tp_rank", "ep_rank"], Fact] = Field(default_factory=FrozenDict)
    maps: FrozenDict[Literal["mask", "index"], Fact] = Field(default_factory=FrozenDict)
    options: Facts = Field(default_factory=FrozenDict)
    method: Fact = LiveFact(paths=("quant_method",))
    methods: tuple[MethodFacts, ...] = ()
    config: FrozenDict[Literal["model", "hf_config"], Fact] = Field(default_factory=FrozenDict)
    function: str
    conversion: ConversionFacts | None = None
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fields_are_the_querys(self) -> Self:
        _check_fields("fields", self.fields)
        return self


def _check_fields(place: str, fields: FrozenDict[str, Any]) -> None:
    known = [name for name in Query.model_fields if name not in _OF_THE_CALLER]
    for name in fields:
        if name not in known:
            raise PlacedError((place, name), f"{name!r} is no field of a query; valid: {', '.join(known)}")
