"""Every rule of the book wins somewhere, and what runs there reads the bytes that it asks for."""

from pathlib import Path

from preshuffle.registry import Registry
from preshuffle.registry.reach import Reach, reach_problems
from support.book.strategies import BOOK, REGISTRY, load_overlay


def test_every_rule_has_a_query_that_it_answers_and_kernels_read_its_bytes() -> None:
    assert list(reach_problems(REGISTRY)) == []


def test_a_witness_is_answered_by_its_rule() -> None:
    reach = Reach(BOOK)
    for rule in list(BOOK.rules.values())[::7]:
        query = reach.witness(rule)
        assert query is not None
        if rule.use is not None:
            assert REGISTRY.resolve(query, kernels=False).rule == rule.id


def test_a_rule_that_several_others_take_together_is_found(tmp_path: Path) -> None:
    one = "    use: null\n    because: a test\n"
    both = "".join(f"  gated-{word}:\n    when: {{gated: {word}, deployment: d}}\n{one}" for word in ("true", "false"))
    last = f"  never:\n    when: {{deployment: d}}\n{one}"
    registry: Registry = load_overlay(tmp_path, f"rules:\n{both}{last}")
    assert registry.book.rules["never"]
    (problem,) = reach_problems(registry)
    assert (
        problem.message
        == "no query was found that rule 'never' answers: 'gated-false' or 'gated-true' answer in its place"
    )
    assert problem.line == 10
