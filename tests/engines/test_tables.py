"""The tables of layers that engines convert, without the engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from preshuffle.layouts.conform.engines.check_engine import AGREE, UNKNOWN
from preshuffle.layouts.conform.engines.drivers.random_experts import FORMATS
from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_table import driven_engines, engine_layers, engine_table
from preshuffle.layouts.conform.standins.engine_worker import query_of
from preshuffle.registry import Registry
from preshuffle.registry.kernels.families.evidence import EngineChoice
from support.engines.figures import OUTCOMES, OWNERS, page
from support.engines.trees import ENGINES, RELEASES

ROOT = Path(__file__).parents[2]
AITER = RELEASES["aiter"]
EQUAL = ("equal", "rank", "equal, other kernels")
CASES = [case for engine in ENGINES for case in engine_cases(engine_table(engine))]


def test_every_engine_of_the_book_has_a_table() -> None:
    assert sorted(ENGINES) == sorted(driven_engines()) == sorted(Registry.default().book.engines)


def test_every_difference_names_whose_fault_it_is() -> None:
    assert [case.name for case in CASES if (case.expect in ("differs", "rank")) != bool(case.differs)] == []
    assert [case.name for case in CASES if (case.expect != "equal") != bool(case.fault)] == []
    assert {case.fault.partition(":")[0] for case in CASES if case.fault} <= set(OWNERS)


def test_every_pattern_names_a_case() -> None:
    for engine in ENGINES:
        table = engine_table(engine)
        names = [case.name for case in engine_cases(table)]
        assert [row["cases"] for row in table.known if not any(re.search(row["cases"], name) for name in names)] == []


def test_cases_use_known_words() -> None:
    assert {case.expect for case in CASES} <= set(OUTCOMES)
    assert set(OUTCOMES) >= AGREE | UNKNOWN
    assert {case.form for case in CASES} <= set(FORMATS)
    assert {case.layer for case in CASES} == set(engine_layers())


@pytest.mark.parametrize("engine", ENGINES)
def test_names_of_cases_are_unique(engine: str) -> None:
    names = [case.name for case in CASES if case.engine == engine]
    assert len(names) == len(set(names))


def test_a_case_takes_what_the_first_pattern_says() -> None:
    def named(name: str) -> EngineCase:
        return next(case for case in CASES if case.engine == "sglang" and re.fullmatch(name, case.name))

    assert named("gpt-oss-120b gfx950 tp8").differs == ("intermediate_pad",)
    assert named("gpt-oss-120b gfx950 tp2").expect == "equal"


def test_evidence_by_an_engines_run_rests_on_layers_with_equal_bytes() -> None:
    registry = Registry.default()
    entries = [entry for entry in registry.book.kernel_evidence.values() if isinstance(entry.known, EngineChoice)]
    assert any(entry.known.run for entry in entries if isinstance(entry.known, EngineChoice))
    for entry in entries:
        if not isinstance(entry.known, EngineChoice) or entry.known.run is None:
            continue
        table = engine_table(entry.known.engine)
        assert entry.known.run.version == table.release
        for layer in entry.known.run.layers:
            found = [case for case in engine_cases(table) if case.layer == layer and case.expect in EQUAL]
            decisions = [registry.resolve(query_of(case, f"{table.name}@{table.release}", AITER)) for case in found]
            ours = [decision for decision in decisions if decision.call.backend == entry.backend]
            assert ours, layer
            for decision in ours:
                layouts = {role: tensor.layout for role, tensor in decision.tensors.items() if role in entry.reads}
                assert layouts == {role: entry.reads[role] for role in layouts}


def test_the_page_holds_the_figures_of_the_tables() -> None:
    written = (ROOT / "docs" / "engines-compared.md").read_text(encoding="utf-8")
    assert written == page()
