"""Rule of the decision table: conditions, recipe and reason.

Specificity decides, and ties do not load.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, Version, freeze
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.base.words import Shard
from preshuffle.registry.entries.condition import Condition, Scalar
from preshuffle.registry.text import field_problems
from preshuffle.registry.values.query import Query

_NO_CONDITION = frozenset({"engine", "env", "tokens", "swiglu_limit", "aiter_features"})
_PLAIN_FIELDS = tuple(name for name in Query.model_fields if name not in _NO_CONDITION)
FIELDS: tuple[str, ...] = (*_PLAIN_FIELDS, "engine", "engine_version", "env")
_GLOBS = frozenset({"model", "engine", "deployment"})
_VERSIONS = frozenset({"aiter", "rocm", "engine_version"})
_NUMBERS = frozenset({"cu_num", "hidden_size", "intermediate_size", "num_experts", "top_k", "tp", "ep", "dp"})
_LIMITED = frozenset({*_NUMBERS, "model"})


def kind_of(field: str) -> str:
    """Return how a field's text is read: ``glob``, ``version``, ``number`` or ``plain``."""
    kinds = (("glob", _GLOBS), ("version", _VERSIONS), ("number", _NUMBERS))
    return next((kind for kind, fields in kinds if field in fields), "plain")


_KIND = {field: kind_of(field) for field in FIELDS}


@lru_cache
def _adapter(field: str) -> TypeAdapter[Any]:
    info = Query.model_fields[field]
    annotation: Any = info.annotation
    for limit in info.metadata if field in _LIMITED else ():  # pydantic splits them off where None is no value
        annotation = Annotated[annotation, limit]
    return TypeAdapter(annotation)


@lru_cache(maxsize=4096)
def _check_value(field: str, kind: str, value: Scalar) -> None:
    """Validate a value as a query's field; ``kind`` keeps ``True`` and 1 apart."""
    _adapter(field).validate_python(value, strict=True)


def _check_values(field: str, condition: Condition) -> None:
    """Refuse a value that no query can have: such a rule would never match, and nobody would notice."""
    if field == "engine" and any("@" in str(value) for value in condition.values):
        raise ValueError(f"{condition.text!r}: engine is the name alone; its version is engine_version")
    if field == "engine" and "" in condition.values:
        raise ValueError("an engine's name is never empty")
    if field not in _PLAIN_FIELDS:
        return
    for value in condition.values:
        try:
            _check_value(field, type(value).__name__, value)
        except ValidationError as error:
            _, problem = field_problems(error)[0]
            valid = f"; valid: {', '.join(problem.valid)}" if problem.valid else ""
            raise ValueError(f"{problem.message}{valid}") from None


class Rule(Frozen):
    """One line of the book's decision table.

    Attributes:
        when: conditions by query field; ``engine`` is the engine's name, ``engine_version`` its version, ``env`` a
            mapping of switches to values. A null means that the query leaves the field out.
        use: the recipe; null where nothing works, and ``because`` says why.
        since: the first release whose code was read to do so: the engine's that ``when`` names, else AITER's. An older
            release is answered as this one, and the answer says so; it is no condition.
        until: the first release that no longer does so; a condition on ``engine_version``, else on ``aiter``.
        shard: how the engine's loader cuts the intermediate size between the ranks; None for whole scale groups.
        indivisible: what must not divide a rank's intermediate size for the rule to answer; None where it may.
        priority: breaks a tie between rules that are equally specific.
        because: the reason, in words.
    """

    id: str
    when: Annotated[FrozenDict[str, Any], AfterValidator(freeze)]
    use: str | None
    shard: Shard | None = None
    indivisible: Annotated[int, Field(ge=2)] | None = None
    priority: int = 0
    because: Annotated[str, Field(min_length=1)]
    evidence: tuple[str, ...] = ()
    since: Version | None = None
    until: Version | None = None

    @model_validator(mode="after")
    def _conditions_parse(self) -> Rule:
        self.conditions()
        self._check_releases()
        return self

    def _check_releases(self) -> None:
        """Refuse releases in the wrong order, and a last one given twice."""
        if self.until is None:
            return
        if self._version in self.when:
            raise PlacedError(("until",), f"give the last release once: as until, or as when.{self._version}")
        if self.since is not None and version_key(self.since) >= version_key(self.until):
            raise PlacedError(("until",), f"until {self.until} is not newer than since {self.since}")

    @cached_property
    def _flat(self) -> Mapping[str, Condition]:
        flat: dict[str, Condition] = {}
        for field, wanted in self.when.items():
            if field not in FIELDS:
                raise PlacedError(("when", field), f"unknown field; valid: {', '.join(FIELDS)}")
            if field != "env":
                flat[field] = _condition(("when", field), field, wanted, _KIND[field])
            elif isinstance(wanted, Mapping):
                for name, value in wanted.items():
                    switch = f"env.{name}"
                    flat[switch] = _condition(("when", field, name), switch, value, "number")
            else:
                raise PlacedError(("when", field), "a mapping of switches to values is needed")
        if self.until is not None and self._version not in flat:
            flat[self._version] = _condition(("until",), self._version, f"<{self.until}", "version")
        return flat

    @property
    def _version(self) -> str:
        """The field whose releases ``since`` and ``until`` are."""
        return "aiter" if self.when.get("engine") is None else "engine_version"

    @property
    def engine_since(self) -> str | None:
        """The first release that was read; None where it is AITER's."""
        return self.since if self._version == "engine_version" else None

    @cached_property
    def specificity(self) -> Specificity:
        """How specific it is."""
        kinds = [condition.kind for condition in self._flat.values()]
        return Specificity(kinds.count("exact"), kinds.count("list"), kinds.count("pattern"), self.priority)

    def conditions(self) -> Mapping[str, Condition]:
        """Return the conditions by flat field name (``env.NAME`` for a switch)."""
        return self._flat


def _condition(path: tuple[str, ...], field: str, wanted: Any, reading: str) -> Condition:
    try:
        condition = Condition.parse(field, wanted, reading)
        _check_values(field, condition)
    except ValueError as error:
        raise PlacedError(path, str(error).removeprefix(f"{'.'.join(path)}: ")) from None
    return condition


class Specificity(NamedTuple):
    """Order of rules: exact values, lists, patterns, then priority.

    Greater is more specific.
    """

    exact: int
    lists: int
    patterns: int
    priority: int


def facts_of(fields: Mapping[str, Any], switches: Mapping[str, str]) -> dict[str, Scalar]:
    """Return the names that conditions use with a query's values.

    Args:
        fields: the query's fields.
        switches: its effective switches, by ``env.NAME``.
    """
    engine = fields.get("engine")
    facts: dict[str, Scalar] = {**fields, **switches}
    facts["aiter_features"] = str(fields.get("aiter_features") or "") or None
    facts["engine"] = engine.name if engine else None
    facts["engine_version"] = engine.version if engine else None
    return facts
