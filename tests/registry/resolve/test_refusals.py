"""Every rule and contract that refuses: what it refuses, and the nearest set-up that works."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any, Final

import pytest

from preshuffle.registry import NoRecipeError, Query
from support.book.strategies import BOOK, REGISTRY
from support.source.yaml_files import read_yaml

_FILE: Final = Path(__file__).parents[2] / "tables" / "refusals.yaml"
TABLE: Final[dict[str, Any]] = read_yaml(_FILE)
ENGINE_ON: Final = {"vllm": {"VLLM_ROCM_USE_AITER": "1"}, "sglang": {"SGLANG_USE_AITER": "1"}}
"""What makes an engine take AITER at all."""


@dataclass(frozen=True, slots=True)
class Row:
    """A refusal with the set-up beside it.

    Attributes:
        refused: fields of the query that it refuses.
        works: the one fact that differs where it works.
    """

    section: str
    id: str
    refused: dict[str, Any]
    works: dict[str, Any]

    def __str__(self) -> str:
        """Name the row in a test's report."""
        return self.id


ROWS: Final = [Row(section, id, **row) for section in ("rules", "contracts") for id, row in TABLE[section].items()]


def query_of(fields: dict[str, Any]) -> Query:
    """Build a query; a model of the book brings its own sizes."""
    known = fields.get("model") in BOOK.models
    merged: dict[str, Any] = {"arch": TABLE["base"]["arch"]} if known else {**TABLE["base"]}
    merged |= fields
    merged |= TABLE["quantizations"].get(merged.pop("quantization", None), {})
    engine = str(merged.get("engine") or "").partition("@")[0]
    switches = {**ENGINE_ON.get(engine, {}), **merged.get("env", {})}
    merged["env"] = {name: value for name, value in switches.items() if value is not None}
    return Query.parse({name: value for name, value in merged.items() if value is not None})


def with_change(fields: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return a query's fields with one fact changed."""
    switches = {**fields.get("env", {}), **change.get("env", {})}
    return {**fields, **change, "env": switches}


def test_every_refusal_has_a_row_and_no_row_is_of_anything_else() -> None:
    assert set(TABLE["rules"]) == {rule.id for rule in BOOK.rules.values() if rule.use is None}
    contracts = BOOK.entries["contracts"].values()
    assert set(TABLE["contracts"]) == {contract.id for contract in contracts if contract.refuses}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_refusal_names_the_rule_and_its_evidence(row: Row) -> None:
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(query_of(row.refused))
    entry: Any = BOOK.entries[row.section][row.id]
    assert caught.value.evidence == entry.evidence
    if row.section == "rules":
        assert caught.value.rule == row.id
    else:
        assert entry.says in str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_nearest_setup_works(row: Row) -> None:
    assert len(row.works) == 1, "one fact"
    assert len(row.works.get("env", {"": ""})) == 1, "one switch"
    changed = query_of(with_change(row.refused, row.works))
    assert changed != query_of(row.refused)
    decision = REGISTRY.resolve(changed)
    assert [str(finding) for finding in decision.findings if finding.severity == "error"] == []


def advised_switches(text: str, engine: str | None, current: dict[str, str]) -> list[tuple[str, str | None]]:
    """Return the switches of an engine that a refusal tells to change, with their new values; None unsets."""
    found: list[tuple[str, str | None]] = []
    readers = {engine, "aiter"}
    for name, flag in BOOK.flags.items():
        if readers.isdisjoint({flag.owner, *flag.also, *flag.choices}):
            continue
        for match in re.finditer(rf"(unset |leave )?(?<![\w-]){re.escape(name)}(?![\w-])(?:[= ]([\w.]+))?", text):
            verb, value = match.groups()
            if verb is not None:
                found.append((name, None))
            elif value is not None and (value in _VALUES or "=" in match[0]) and value != current.get(name):
                found.append((name, value))
    return found


_VALUES: Final = frozenset(
    value for flag in BOOK.flags.values() for value in (*flag.values, *chain(*flag.choices.values()))
)


def refused_by(fields: dict[str, Any]) -> str | None:
    """Return the rule that refuses a query; None where none does."""
    try:
        REGISTRY.resolve(query_of(fields))
    except NoRecipeError as error:
        return error.rule
    return None


@pytest.mark.parametrize("row", [row for row in ROWS if row.section == "rules"], ids=str)
def test_switches_that_a_refusal_advises_lift_it(row: Row) -> None:
    """Each alone or, where several belong together, all of them."""
    query = query_of(row.refused)
    engine = query.engine.name if query.engine else None
    advised = advised_switches(BOOK.rules[row.id].because, engine, dict(query.env))
    together = with_change(row.refused, {"env": dict(advised)})
    for name, value in advised:
        alone = with_change(row.refused, {"env": {name: value}})
        assert None in (refused_by(alone), refused_by(together)), (name, value)


def kinds_of_models() -> list[str]:
    """Return one model of the book for each kind of experts."""
    kinds: dict[tuple[object, ...], str] = {}
    for model in BOOK.models.values():
        kind = (model.weight_dtype, model.quant_type, model.activation, model.activation_dtype, model.producer)
        if model.hidden_size:
            kinds.setdefault(kind, model.id)
    return list(kinds.values())


SWITCHES: Final = list({str(row.refused.get("env", {})): row.refused.get("env", {}) for row in ROWS}.values())
"""What the rows set; each is tried with every model."""
IN_VAIN: Final = {
    ("atom.gfx942.silu", "atom.triton.gfx942.silu.a8w4"),  # of DeepSeek-V4.1, which ATOM does not know
}


@pytest.mark.parametrize("engine", [None, "atom", "vllm", "sglang"])
def test_what_a_refusal_advises_is_not_refused_for_any_model(engine: str | None) -> None:
    """Switches alone or together: what then runs may need other sizes, but no rule refuses it."""
    tried, seen = 0, set[tuple[str, str]]()
    for model, arch, switches in product(kinds_of_models(), ("gfx942", "gfx950", "gfx1250"), SWITCHES):
        fields = {"model": model, "arch": arch, "engine": engine, "aiter": "0.1.20", "tp": 1, "env": switches}
        rule = refused_by(fields)
        if rule is None or (rule, model) in seen:
            continue
        seen.add((rule, model))
        advised = advised_switches(BOOK.rules[rule].because, engine, switches)
        together = refused_by(with_change(fields, {"env": dict(advised)}))
        for name, value in advised:
            tried += 1
            alone = refused_by(with_change(fields, {"env": {name: value}}))
            assert None in (alone, together) or (rule, alone) in IN_VAIN, (model, arch, switches, rule, name, alone)
    assert tried >= (0 if engine is None else 4)


def test_advice_is_read() -> None:
    text = "unset AITER_FORCE_A8W4, or set SGLANG_USE_AITER_MOE_GU_ITLV=0 with --moe-runner-backend aiter"
    wanted = {("AITER_FORCE_A8W4", None), ("SGLANG_USE_AITER_MOE_GU_ITLV", "0"), ("--moe-runner-backend", "aiter")}
    assert set(advised_switches(text, "sglang", {})) == wanted
    assert set(advised_switches(text, "vllm", {})) == {("AITER_FORCE_A8W4", None)}
    assert ("SGLANG_USE_AITER_MOE_GU_ITLV", "0") not in advised_switches(
        text, "sglang", {"SGLANG_USE_AITER_MOE_GU_ITLV": "0"}
    )
