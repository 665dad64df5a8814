"""A rule: when a query looks like this, use that recipe, because. Specificity decides, and ties do not load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from preshuffle.registry.condition import Condition, Scalar
from preshuffle.registry.query import Frozen, Query

_PLAIN_FIELDS = tuple(name for name in Query.model_fields if name not in {"engine", "env", "tokens"})
FIELDS: tuple[str, ...] = (*_PLAIN_FIELDS, "engine", "engine_version", "env")
_GLOBS = frozenset({"model", "engine", "deployment"})
_VERSIONS = frozenset({"aiter", "rocm", "engine_version"})


def kind_of(field: str) -> str:
    """Return how a field's text is read: ``glob``, ``version`` or ``plain``."""
    return "glob" if field in _GLOBS else "version" if field in _VERSIONS else "plain"


class Rule(Frozen):
    """One line of the book's decision table.

    Attributes:
        when: conditions by query field; ``engine`` is the engine's name, ``engine_version`` its version, ``env`` a
            mapping of switches to values. A null means that the query leaves the field out.
        use: the recipe.
        priority: breaks a tie between rules that are equally specific.
        because: the reason, in words.
    """

    id: str
    when: dict[str, Any]
    use: str
    priority: int = 0
    because: Annotated[str, Field(min_length=1)]
    evidence: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_conditions(self) -> Rule:
        for field in self.when:
            if field not in FIELDS:
                raise ValueError(f"when: unknown field {field!r}; valid: {', '.join(FIELDS)}")
        if not isinstance(self.when.get("env", {}), Mapping):
            raise ValueError("when.env: a mapping of switches to values is needed")
        self.conditions()
        return self

    def conditions(self) -> dict[str, Condition]:
        """Return the conditions by flat field name (``env.NAME`` for a switch)."""
        flat: dict[str, Condition] = {}
        for field, wanted in self.when.items():
            if field == "env":
                for name, value in wanted.items():
                    flat[f"env.{name}"] = Condition.parse(f"env.{name}", value, "plain")
            else:
                flat[field] = Condition.parse(field, wanted, kind_of(field))
        return flat


@dataclass(frozen=True, slots=True)
class Specificity:
    """How specific a rule is: exact values, then lists, then globs and ranges, then priority."""

    exact: int
    lists: int
    patterns: int
    priority: int

    @staticmethod
    def of(rule: Rule) -> Specificity:
        """Count the rule's conditions by kind."""
        kinds = [condition.kind for condition in rule.conditions().values()]
        return Specificity(kinds.count("exact"), kinds.count("list"), kinds.count("pattern"), rule.priority)

    @property
    def key(self) -> tuple[int, int, int, int]:
        """A sort key; greater is more specific."""
        return (self.exact, self.lists, self.patterns, self.priority)


def facts_of(fields: Mapping[str, Any], switches: Mapping[str, str]) -> dict[str, Scalar]:
    """Flatten a query's fields and its effective switches into the names that conditions use."""
    engine = fields.get("engine")
    facts: dict[str, Scalar] = {name: fields.get(name) for name in _PLAIN_FIELDS}
    facts["engine"] = engine.name if engine else None
    facts["engine_version"] = engine.version if engine else None
    facts.update({f"env.{name}": value for name, value in switches.items()})
    return facts
