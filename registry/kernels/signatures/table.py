"""Table of signatures, and reading and spelling of their arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any

from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.kernels.signatures.releases import AITER, span_of, takes
from preshuffle.registry.kernels.signatures.signature import CALLER, Argument, Enumeration, Signature
from preshuffle.registry.text import packaged_sections

SIGNATURES = "signatures.yaml"
"""File of the packaged book that has them all."""
_NOTHING = (None, 0, False, "")
"""Values that say nothing to a kernel: a function without the argument behaves as if it had got them."""
_SEPARATED = "separated"
"""The gate mode of every kernel that takes none."""
_NOT_PASSED_ON = ("function", "expert_map")
"""Of a call's fields, the name of the entry point, and what the caller's own tensor shows."""


_SPEED_ONLY = ("hidden_pad", "intermediate_pad")
"""Fields that may be left out where there is no argument: kernels then compute the pads too, which costs time only."""


class SignatureTable:
    """Signatures of functions, by id."""

    def __init__(self, signatures: Iterable[Signature], enumerations: Iterable[Enumeration]) -> None:
        """Index entries of a book."""
        self.by_id = {entry.id: entry for entry in signatures}
        self.enumerations = {entry.id: _enumeration(entry) for entry in enumerations}

    def find(self, name: str) -> Signature:
        """Return a signature.

        Raises:
            LayoutError: there is none of that name; says which come near.
        """
        found = self.by_id.get(name)
        if found is None:
            raise LayoutError(f"no signature of {name!r}{suggestion(name, self.by_id)}")
        return found

    def arguments_of(
        self,
        name: str,
        call: Mapping[str, Any],
        *,
        version: str | None = None,
        aiter: str | None = None,
        parameters: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Return what a decided call passes to a function, beside tensors.

        Fields that are None are not passed. dtypes keep the registry's names.

        Args:
            name: of the signature.
            call: fields of the call by name (``CallField``), and its ``function``.
            version: of the engine that owns the function, where it is an engine's; None for the newest known.
            aiter: AITER's version; None for the newest known.
            parameters: names that the function at hand takes; they count before its version.

        Raises:
            LayoutError: the function runs something else, sets a field otherwise, or has no argument for a field that
                is not nothing; says since which release it has.
        """
        signature = self.find(name)
        _check_runs(signature, call)
        release = aiter if signature.owner == AITER else version
        arguments: dict[str, Any] = {}
        for argument_name, argument in signature.arguments.items():
            value = None if argument.carries in _NOT_PASSED_ON else call.get(argument.carries)
            taken = takes(signature, argument_name, release, parameters)
            if value is not None and taken:
                place = arguments.setdefault(argument.under, {}) if argument.under else arguments
                place[argument_name] = self.spelled(argument, value)
            elif value is None or argument.carries in _SPEED_ONLY:
                continue
            elif value not in self._without(signature, argument, call, taken, aiter):
                raise LayoutError(_missing(signature, argument_name, value, release))
        self._check_carried(signature, call, aiter)
        if signature.calls is not None:
            self.arguments_of(signature.calls, call, aiter=aiter)  # what it hands on must be taken there
        return arguments

    def _check_carried(self, signature: Signature, call: Mapping[str, Any], aiter: str | None) -> None:
        """Raise a LayoutError for a field of the call that no argument carries and that says something."""
        carried = {argument.carries for argument in signature.arguments.values()}
        carried |= {*signature.fixed, *signature.elsewhere, *_NOT_PASSED_ON, *_SPEED_ONLY}
        for name in call.keys() - carried:
            allowed = self._without(signature, Argument(carries=name), call, False, aiter)
            if call[name] not in allowed | {_SEPARATED}:
                raise LayoutError(f"{signature.id} has no argument for {name} = {call[name]!r}")

    def _without(
        self, signature: Signature, argument: Argument, call: Mapping[str, Any], taken: bool | None, aiter: str | None
    ) -> set[Any]:
        """Return the values with which a call needs no argument.

        Those that the function implies or, where it hands the call on, the function behind it. Where it is not known
        whether there is such an argument, both its absence and its default must mean the same.
        """
        inner = self.by_id.get(signature.calls or "")
        names = inner.arguments.items() if inner is not None else ()
        for name, one in names:
            if inner is not None and one.carries == argument.carries:
                inner_taken = takes(inner, name, aiter)
                return _by_default(one) if inner_taken else self._without(inner, one, call, inner_taken, None)
        implied = implied_value(argument, call)
        absent = _by_default(argument) if implied is None else {implied}
        return absent if taken is False else absent & _by_default(argument)

    def spelled(self, argument: Argument, value: Any) -> Any:
        """Return a field's value as an argument spells it."""
        word = argument.spelling.get(value, value) if isinstance(value, str) else value
        if argument.choices and word not in argument.choices:
            raise LayoutError(f"{word!r} cannot be passed; valid: {', '.join(argument.choices)}")
        if argument.form not in ("enumerator", "number") or argument.enumeration is None:
            return word
        members = self.enumerations[argument.enumeration]
        if word not in members.__members__:
            raise LayoutError(f"{argument.enumeration} has no {word}; valid: {', '.join(members.__members__)}")
        return members[word] if argument.form == "enumerator" else members[word].value

    def read(self, argument: Argument, value: Any) -> Any:
        """Return what an argument's value says, as a field of the call.

        Enumerators are read by their name or number; None where they say that nothing was passed on.
        """
        if value is None or (argument.unset is not None and value == argument.unset):
            return None
        word = value
        if argument.enumeration is not None:
            word = self._name_of(argument.enumeration, value)
        elif isinstance(getattr(value, "value", None), str):
            word = value.value
        back = {theirs: ours for ours, theirs in argument.spelling.items()}
        return back.get(word, word) if isinstance(word, str) else word

    def _name_of(self, enumeration: str, value: Any) -> str | None:
        members = self.enumerations[enumeration]
        name = value if isinstance(value, str) else getattr(value, "name", None)
        if name in members.__members__:
            return str(name)
        number = getattr(value, "value", value)
        return next((one.name for one in members if one.value == number), None)


def implied_value(argument: Argument, call: Mapping[str, Any]) -> bool | int | float | str | None:
    """Return the value that a function without an argument implies, or None."""
    fitting = (one for one in argument.implied if all(call.get(name) == word for name, word in one.when.items()))
    return next((one.value for one in fitting), None)


def roles_of(signature: Signature) -> dict[str, str]:
    """Return the roles of tensors that a function takes, by argument."""
    return {
        name: argument.carries
        for name, argument in signature.arguments.items()
        if argument.carries.startswith(("w13_", "w2_"))
    }


def caller_arguments(signature: Signature) -> tuple[str, ...]:
    """Return the arguments that belong to one call alone."""
    return tuple(name for name, argument in signature.arguments.items() if argument.carries == CALLER)


def _check_runs(signature: Signature, call: Mapping[str, Any]) -> None:
    """Raise a LayoutError where a function cannot make a decided call, whatever its release."""
    if call["function"] != signature.function:
        raise LayoutError(f"{signature.id} runs {signature.function}; the decided call is of {call['function']}")
    for field, value in signature.fixed.items():
        if call.get(field) not in (None, value):
            raise LayoutError(f"{signature.id} sets {field} to {value!r}; the decided call needs {call[field]!r}")


def _by_default(argument: Argument) -> set[Any]:
    return {*_NOTHING, argument.default}


def _missing(signature: Signature, name: str, value: Any, release: str | None) -> str:
    argument = signature.arguments[name]
    of = f"{signature.id} of {signature.owner} {release}" if release else signature.id
    unknown = takes(signature, name, release) is None
    lacks = f"whether {of} takes {name} is not known by version" if unknown else f"{of} takes no {name}"
    return (
        f"{lacks} ({span_of(argument)}); the decided call needs {argument.carries} = {value!r}. "
        f"Take another {signature.owner}, or pass parameters=inspect.signature(function).parameters"
    )


def _enumeration(entry: Enumeration) -> type[IntEnum]:
    """Return an enumeration whose members have AITER's names and numbers."""
    functional: Any = IntEnum
    made: type[IntEnum] = functional(entry.id, dict(entry.members))
    return made


@lru_cache(maxsize=1)
def packaged_signatures() -> SignatureTable:
    """Return the packaged book's signatures, read once per process.

    Raises:
        BookError: the file is not valid YAML.
    """
    signatures, enumerations = packaged_sections(SIGNATURES, "signatures", "enumerations")
    return SignatureTable(map(Signature.model_validate, signatures), map(Enumeration.model_validate, enumerations))
