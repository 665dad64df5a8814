"""The table of rules is complete, every code explains itself, and the deny-lists are fit to be read by people."""

import re
from typing import get_args

import pytest

from preshuffle.registry import QueryError, explain_code
from preshuffle.registry.check.codes import CODES
from preshuffle.registry.check.rule_table import RULES
from preshuffle.registry.entries.deployments import KnownBadEntry
from preshuffle.registry.kernels.aiter_versions.dispatch_book import dispatch_book
from preshuffle.registry.values.finding import WARNINGS, FindingCode
from support.book.observations import registry
from support.book.strategies import load_overlay


def test_every_code_has_one_rule() -> None:
    assert sorted(rule.code for rule in RULES) == sorted(get_args(FindingCode))


@pytest.mark.parametrize("code", CODES)
def test_every_code_explains_itself(code: str) -> None:
    text = explain_code(code)
    assert text.startswith(f"{code} ({'warning' if code in WARNINGS else 'error'}): ")
    assert all(part in text for part in ("Why it matters:", "How to fix it:", "https://"))
    assert len(text.splitlines()[0]) > len(code) + 40


def test_a_wrong_code_names_the_nearest() -> None:
    with pytest.raises(QueryError, match="unknown code 'tag_list'; did you mean tag_lost"):
        explain_code("tag_list")


def test_entries_name_what_exists() -> None:
    book = registry().book
    layouts = book.known_layouts | {"n32k8"}
    for entry in book.entries["backends"].values():
        assert {name for variant in entry.variants for names in variant.reads.values() for name in names} <= layouts
    for entry in book.entries["kernel_labels"].values():
        re.compile(entry.pattern)
    for section in ("contracts", "known_bad"):
        for entry in book.entries[section].values():
            for name in ("w13_layout", "w2_layout"):
                assert entry.when.get(name) in (None, *layouts), entry.id


def test_every_switch_of_the_dispatch_is_in_the_book() -> None:
    flags = registry().book.flags
    for name, since in dispatch_book().env_since.items():
        assert flags[name].owner == "aiter"
        assert flags[name].since == since, name


def test_switches_of_contracts_are_in_the_book() -> None:
    book = registry().book
    names = {
        name.removeprefix("env.")
        for section in ("contracts", "known_bad")
        for entry in book.entries[section].values()
        for name in (*entry.when, *(name for conditions in entry.unless for name in conditions))
        if name.startswith("env.")
    }
    assert names <= set(book.flags)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{}", "an entry without conditions would condemn every deployment"),
        ("{colour: red}", "unknown fact 'colour'"),
        ("{aiter: '<x'}", "not a version"),
        ("{'model % 4': '>0'}", "a remainder needs a fact that counts"),
        ("{tp: '>two'}", "not a whole number"),
    ],
)
def test_a_wrong_entry_is_told_with_its_place(tmp_path: pytest.TempPathFactory, when: str, message: str) -> None:
    text = (
        f"known_bad:\n  mine:\n    when: {when}\n    effect: wrong\n    says: x\n    workaround: y\n    evidence: [z]\n"
    )
    with pytest.raises(ValueError, match=r"overlay\.yaml:3") as caught:
        load_overlay(tmp_path, text)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_slow_entry_is_a_warning(tmp_path: pytest.TempPathFactory) -> None:
    entry = KnownBadEntry.model_validate(
        {"id": "x", "when": {"tp": 1}, "effect": "slow", "says": "s", "workaround": "w", "evidence": ["e"]}
    )
    assert entry.effect == "slow"
