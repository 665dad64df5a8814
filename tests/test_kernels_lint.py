"""The kernel part of the book: what is packaged holds together, and every kind of slip is found where it stands."""

from pathlib import Path

import pytest

from preshuffle.registry import Registry
from preshuffle.registry.kernels import book
from preshuffle.registry.kernels.lint import dispatch_problems, family_problems, kernel_book_problems
from preshuffle.registry.located import parse_yaml

LAYOUTS = Registry.default().book.known_layouts
FOLDER = Path(book.__file__).parents[1] / "book"


def test_the_packaged_files_are_right() -> None:
    assert kernel_book_problems(LAYOUTS) == []


SLIPS = [
    (book.FAMILIES, "  - id: ck_gemm2", "  - id: ck_gemm1", "duplicate family 'ck_gemm1'"),
    (book.FAMILIES, "grammar: '^opus_moe1", "grammar: '^(opus_moe1", "not a regular expression"),
    (book.FAMILIES, "gui: \"gate and up", "guy: \"gate and up", "its grammar has no group 'guy'"),
    (book.FAMILIES, "ignores: [gate_mode]", "ignores: [gate_mod]", "a call has no 'gate_mod'"),
    (book.FAMILIES, "{name.gui: [", "{name.guy: [", "nothing is known as 'name.guy'"),
    (book.FAMILIES, "{gate_mode: [interleave]}", "{gait_mode: [interleave]}", "nothing is known as 'gait_mode'"),
    (book.FAMILIES, "w13_weight: gui16", "w13_weight: gui17", "unknown layout 'gui17'"),
    (book.FAMILIES, "reads: {w2_weight: plain", "reads: {w13_weight: plain", "stage 2 reads no 'w13_weight'"),
    (book.FAMILIES, "stage: \"1\"", "stage: 1.5", "families.0.stage"),
    (book.DISPATCH, 'newest: "0.1.20.post1"', 'newest: "latest"', "'latest' is not a version"),
    (book.DISPATCH, 'newest: "0.1.20.post1"', 'newest: "0.1.9"', "0.1.9 is older than 0.1.20"),
    (book.DISPATCH, 'AITER_KSPLIT: "0.1.9"', 'AITER_KSPLIT: "0.1.٩"', "is not a version"),
    (book.DISPATCH, 'since: "0.1.12"', 'since: "0.1.10"', "0.1.10 comes after 0.1.11"),
    (book.DISPATCH, "{below: 16384, to: 2048}, {to: 16384}]", "{below: 16384, to: 2048}]", "the last tier"),
    (book.DISPATCH, "[{below: 17, to: 16}, {below: 1024", "[{below: 2000, to: 16}, {below: 1024", "tiers rise"),
    (book.DISPATCH, "stage_rules: [one_stage, flydsl, ck", "stage_rules: [one_stage, flidsl, ck", "called 'flidsl'"),
    (book.DISPATCH, "cktile_swiglu, ck, asm]", "cktile_swiglu, ck]", "the last stage rule must be asm"),
    (book.DISPATCH, "bound: SWIGLU_FP8_BOUND", "bound: SWIGLU_BOUND", "no bound is called 'SWIGLU_BOUND'"),
    (book.DISPATCH, "bound: SWIGLU_FP8_BOUND, below: bf16, ", "bound: SWIGLU_FP8_BOUND, ", "bound and below go"),
    (book.DISPATCH, "- {when: {quant_type: [per_1x32]}, dtype", "- {when: {quant: [per_1x32]}, dtype", "no 'quant'"),
    (book.DISPATCH, "act_type: exact\n", "act_type: exactly\n", "act_type: 'exactly' is not one of"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "says"), SLIPS, ids=[slip[3][:30] for slip in SLIPS])
def test_every_slip_is_found_where_it_stands(name: str, old: str, new: str, says: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert old in text
    changed = text.replace(old, new, 1)
    document, problems = parse_yaml(changed, name)
    assert problems == []
    check = family_problems(document, LAYOUTS) if name == book.FAMILIES else dispatch_problems(document)
    found = list(check)
    assert any(says in problem.message for problem in found), [str(problem) for problem in found]
    at = changed[: text.index(old)].count("\n") + 1
    line = min((problem.line for problem in found if says in problem.message), key=lambda line: abs(line - at))
    assert abs(line - at) <= 1
