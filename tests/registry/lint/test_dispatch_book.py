"""How AITER versions behave: what is packaged holds together, and every kind of slip is found where it stands."""

from pathlib import Path

import pytest

from preshuffle.registry.kernels.aiter_versions import dispatch_book
from preshuffle.registry.lint.dispatch_book import dispatch_book_problems, dispatch_problems
from preshuffle.registry.text.yaml_text import parse_yaml

FOLDER = Path(dispatch_book.__file__).parents[2] / "book"


def test_the_packaged_file_is_right() -> None:
    assert dispatch_book_problems() == []


SLIPS = [
    ('newest: "0.1.20.post1"', 'newest: "latest"', "'latest' is not a version"),
    ('newest: "0.1.20.post1"', 'newest: "0.1.9"', "0.1.9 is older than 0.1.20"),
    ('AITER_KSPLIT: "0.1.9"', 'AITER_KSPLIT: "0.1.٩"', "is not a version"),
    ('since: "0.1.12"', 'since: "0.1.10"', "0.1.10 comes after 0.1.11"),
    ("{below: 16384, to: 2048}, {to: 16384}]", "{below: 16384, to: 2048}]", "the last tier"),
    ("[{below: 17, to: 16}, {below: 1024", "[{below: 2000, to: 16}, {below: 1024", "tiers rise"),
    ("stage_rules: [one_stage, flydsl, ck", "stage_rules: [one_stage, flidsl, ck", "called 'flidsl'"),
    ("cktile_swiglu, ck, asm]", "cktile_swiglu, ck]", "the last stage rule must be asm"),
    ("bound: SWIGLU_FP8_BOUND", "bound: SWIGLU_BOUND", "no bound is called 'SWIGLU_BOUND'"),
    ("bound: SWIGLU_FP8_BOUND, below: bf16, ", "bound: SWIGLU_FP8_BOUND, ", "bound and below go"),
    ("- {when: {quant_type: [per_1x32]}, dtype", "- {when: {quant: [per_1x32]}, dtype", "no 'quant'"),
    ("act_type: exact\n", "act_type: exactly\n", "act_type: 'exactly' is not one of"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), SLIPS, ids=[slip[2][:30] for slip in SLIPS])
def test_every_slip_is_found_where_it_stands(old: str, new: str, says: str) -> None:
    text = (FOLDER / dispatch_book.DISPATCH).read_text(encoding="utf-8")
    assert old in text
    changed = text.replace(old, new, 1)
    document, problems = parse_yaml(changed, dispatch_book.DISPATCH)
    assert problems == []
    found = list(dispatch_problems(document))
    assert any(says in problem.message for problem in found), [str(problem) for problem in found]
    at = changed[: text.index(old)].count("\n") + 1
    line = min((problem.line for problem in found if says in problem.message), key=lambda line: abs(line - at))
    assert abs(line - at) <= 1
