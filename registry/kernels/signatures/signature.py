"""Entries of sections ``signatures`` and ``enumerations``: functions' arguments."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, Version
from preshuffle.registry.base.words import ROLES

CallField = Literal[
    "gate_mode",
    "quant_type",
    "activation",
    "hidden_pad",
    "intermediate_pad",
    "swiglu_limit",
    "quant_dtype_a",
    "doweight_stage1",
    "situ_beta",
    "situ_linear_beta",
    "expert_map",
]
"""Fields of a decided call that an argument may carry."""
CALLER: Final = "caller"
"""What an argument carries that belongs to the one call: tokens, their experts, where the result goes."""
_CARRIED = (*ROLES, *get_args(CallField), CALLER)


class Implied(Frozen):
    """What releases without an argument do, for calls with certain values.

    Attributes:
        when: fields of the call and the values that they must have; empty for all calls.
        value: what the function behaves as if it had got.
    """

    when: FrozenDict[CallField, str] = Field(default_factory=FrozenDict)
    value: bool | int | float | str


class Argument(Frozen):
    """An argument of a function: content and spelling.

    Attributes:
        carries: a role (its tensor), a field of the decided call, or ``caller``.
        form: ``value`` as it is; ``enumerator``, ``number`` (an enumerator's) or ``word`` (its name); ``dtype`` of
            torch.
        enumeration: whose enumerators they are.
        type: ``module:name`` of the owner's class of words; where it is imported the word is passed as one of it.
        spelling: words of ours that it spells otherwise.
        choices: the words that it takes, as it spells them; empty where all are taken.
        default: the function's own.
        unset: a value that says that nothing is passed on; the function behind it then takes its own default.
        since: the first release of the function's owner that takes it; None where every known one does.
        until: the first one that takes it no more.
        under: the argument of the function, a mapping, in which it stands.
        implied: what releases without the argument do; the first that fits the call counts.
    """

    carries: str
    form: Literal["value", "enumerator", "number", "word", "dtype"] = "value"
    enumeration: str | None = None
    type: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    spelling: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    choices: tuple[str, ...] = ()
    default: bool | int | float | str | None = None
    unset: bool | int | float | str | None = None
    since: Version | None = None
    until: Version | None = None
    under: str | None = None
    implied: tuple[Implied, ...] = ()

    @model_validator(mode="after")
    def _carries_something_known(self) -> Self:
        if self.carries not in _CARRIED:
            raise PlacedError(("carries",), f"{self.carries!r} is nothing to carry; valid: {', '.join(_CARRIED)}")
        if self.form in ("enumerator", "number") and self.enumeration is None:
            raise PlacedError(("enumeration",), f"the form {self.form} needs an enumeration")
        return self


def _argument(value: Any) -> Any:
    return {"carries": value} if isinstance(value, str) else value


class Signature(Frozen):
    """A function that runs experts, or a wrapper of one.

    Attributes:
        owner: whose releases its arguments depend on: ``aiter``, or an engine's name.
        path: where it is: ``module:name``.
        function: the entry point (section ``functions``) that runs in the end.
        calls: the signature to which it hands the call on; None where it is the entry point itself.
        arguments: by name, in the order of the function. A word alone says what it carries.
        fixed: fields of the call that the function sets itself.
        elsewhere: fields that its owner takes from somewhere else.
    """

    id: str
    title: Annotated[str, Field(min_length=1)]
    owner: str
    path: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
    function: str
    calls: str | None = None
    arguments: Annotated[
        FrozenDict[str, Annotated[Argument, BeforeValidator(_argument, json_schema_input_type=Argument | str)]],
        Field(min_length=1),
    ]
    fixed: FrozenDict[CallField, bool | float | str] = Field(default_factory=FrozenDict)
    elsewhere: tuple[CallField, ...] = ()
    evidence: tuple[str, ...] = ()


class Enumeration(Frozen):
    """Enumerators by name, with their numbers.

    Attributes:
        path: where the library has it: ``module:name``.
        members: number by name.
        since: the first release that has an enumerator, where not all have it.
    """

    id: str
    title: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
    members: Annotated[FrozenDict[str, int], Field(min_length=1)]
    since: FrozenDict[str, Version] = Field(default_factory=FrozenDict)
    evidence: tuple[str, ...] = ()
