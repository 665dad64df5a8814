"""What must hold between the entries of a book."""

import json
from pathlib import Path

import pytest

from preshuffle.registry import BookError, Registry
from preshuffle.registry.base.errors import Problem
from support.book.strategies import BOOK, load_overlay

RECIPE = """recipes:
  mine:
    title: t
    suits: a test
    tensors:
      w13_weight: {layout: sep16, pad: {rows: 256, k: 256}, dtype: fp4x2, order: GGUU}
      w2_weight: {layout: sep16, pad: {rows: 256, k: 256}, dtype: fp4x2}
      w13_weight_scale: {layout: e8, pad: {rows: 256, k: 8}, dtype: e8m0, order: GGUU}
      w2_weight_scale: {layout: e8, pad: {rows: 256, k: 8}, dtype: e8m0}
    call: {gate_mode: separated, quant_type: per_1x32}
    migration_safe: true
    supports_lora: false
    evidence: [x]
"""


def problems_of(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(BookError) as caught:
        load_overlay(folder, text)
    return caught.value.problems


def rules(*entries: tuple[str, int]) -> str:
    lines = "".join(
        f"  r{number}:\n    when: {when}\n    use: mxfp4.sep16\n    priority: {priority}\n"
        "    because: a test\n    evidence: [x]\n"
        for number, (when, priority) in enumerate(entries, 1)
    )
    return f"rules:\n{lines}"


def test_the_recipe_that_these_tests_break_loads(tmp_path: Path) -> None:
    assert "mine" in load_overlay(tmp_path, RECIPE).book.recipes


SCALE = "w13_weight_scale: {layout: e8,"
READS = "whose bytes a kernel reads with gate_mode="


@pytest.mark.parametrize(
    ("old", "new", "place", "part"),
    [
        (
            "{layout: sep16, pad: {rows: 256, k: 256}, dtype: fp4x2, o",
            "{layout: sep61, dtype: fp4x2, o",
            "6:20",
            "sep61",
        ),
        ("w13_weight: {layout: sep16", "w13_weight: {layout: gui16", "6:20", f"{READS}interleave"),
        (SCALE, "w13_weight_scale: {layout: e8_gui16,", "8:26", f"{READS}interleave"),
        ("gate_mode: separated", "gate_mode: interleave", "6:20", f"{READS}separated"),
        ("w2_weight: {layout: sep16", "w2_weight: {layout: gui16", "7:19", "no gate and up"),
        ("w2_weight_scale: {layout: e8", "w2_weight_scale: {layout: e8_gui16", "9:25", "no gate and up"),
        ("{rows: 256, k: 8}, dtype: e8m0, o", "{rows: 256, k: 4}, dtype: e8m0, o", "8:38", "the tile of e8"),
        ("{rows: 256, k: 8}, dtype: e8m0}", "{rows: 128, k: 8}, dtype: e8m0}", "9:37", "is padded to 256 rows"),
        ("{rows: 256, k: 8}, dtype: e8m0}", "{rows: 256, k: 16}, dtype: e8m0}", "9:37", "16 groups (512 values)"),
        (
            "    evidence",
            "    requires: {aiter: [gatemode]}\n    evidence",
            "13:16",
            "'gatemode'; did you mean gate_mode",
        ),
        ("    evidence", "    env: {AITER_BF16: '1'}\n    evidence", "13:11", "unknown switch 'AITER_BF16'"),
    ],
)
def test_a_recipe_that_disagrees_with_itself_does_not_load(
    tmp_path: Path, old: str, new: str, place: str, part: str
) -> None:
    text = RECIPE.replace(old, new, 1)
    assert text != RECIPE
    problem = problems_of(tmp_path, text)[0]
    assert f"{problem.line}:{problem.column}" == place
    assert part in str(problem)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (
            "{rows: 256, k: 256}, dtype: fp4x2, o",
            "{rows: 256, k: 128}, dtype: fp4x2, o",
            "w13_weight: pad.k 128, and w2_",
        ),
        ("{rows: 256, k: 256}, dtype: fp4x2, o", "{rows: 64, k: 256}, dtype: fp4x2, o", "w13_weight: pad.rows 64, and"),
        (
            "    call",
            "      w13_bias: {layout: plain, dtype: fp32}\n    call",
            "w13_bias: pad.rows 1, and w2_weight's K are",
        ),
        (
            "    call",
            "      w2_bias: {layout: plain, dtype: fp32}\n    call",
            "w2_bias: pad.rows 1, and w2_weight's rows are",
        ),
    ],
)
def test_hidden_and_intermediate_are_one_number_each(tmp_path: Path, old: str, new: str, part: str) -> None:
    """AITER takes both sizes from w2; a w13 or a bias that is padded to another would be read past its end."""
    assert part in "\n".join(problem.message for problem in problems_of(tmp_path, RECIPE.replace(old, new, 1)))


def test_a_row_order_that_is_left_out_hides_nothing(tmp_path: Path) -> None:
    text = RECIPE.replace(", order: GGUU", "").replace("w13_weight: {layout: sep16", "w13_weight: {layout: gui16")
    (problem,) = problems_of(tmp_path, text)
    assert f"{READS}interleave" in problem.message


def test_a_gated_recipe_says_the_order_of_its_rows(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, RECIPE.replace(", order: GGUU", ""))
    assert (f"{problem.line}:{problem.column}", problem.valid) == ("6:7", ("order: GGUU", "order: GUGU"))
    assert problem.file.endswith(".yaml")
    assert "recipe 'mine': w13_weight has rows of gate and up, and no order" in problem.message
    assert "(nor have w13_weight_scale)" in problem.message


def test_a_recipe_for_layers_without_a_gate_needs_no_order(tmp_path: Path) -> None:
    recipe = RECIPE.replace(", order: GGUU", "").replace(
        "quant_type: per_1x32}", "quant_type: per_1x32, function: f, backend: triton}"
    )
    recipe += "functions: {f: {title: t, backends: [triton], evidence: [x]}}\n"
    rule = "rules:\n  r:\n    when: {model: a/b, gated: GATED}\n    use: mine\n    because: a test\n"
    assert "r" in load_overlay(tmp_path, recipe + rule.replace("GATED", "false")).book.rules
    assert "no order" in problems_of(tmp_path, recipe + rule.replace("GATED", "true"))[0].message


@pytest.mark.parametrize(
    ("when", "use", "place", "part"),
    [
        ("{tp: 3}", "mxfp4.sep61", "4:5", "unknown recipe 'mxfp4.sep61'; did you mean mxfp4.sep16"),
        ("{arch: gfx990}", "mxfp4.sep16", "3:12", "unknown arch 'gfx990'; valid: gfx942, gfx950, gfx1250"),
        ("{arch: [gfx950, gfx990]}", "mxfp4.sep16", "3:12", "unknown arch 'gfx990'"),
        ("{env: {GPTOSS: '1'}}", "mxfp4.sep16", "3:18", "unknown switch 'GPTOSS'; valid: "),
    ],
)
def test_a_rule_that_names_what_is_not_there(tmp_path: Path, when: str, use: str, place: str, part: str) -> None:
    (problem,) = problems_of(tmp_path, rules((when, 0)).replace("mxfp4.sep16", use))
    assert f"{problem.line}:{problem.column}" == place
    assert part in str(problem)


@pytest.mark.parametrize(
    ("section", "taken", "fields"),
    [
        ("layouts", "sep16", "title: t, pattern: e n k -> e k n, "),
        ("layouts", "CDNA4_SCALE", "title: t, pattern: e n k -> e k n, "),
        ("models", "gpt-oss-120b", ""),
        ("models", "openai/gpt-oss-20b", ""),
        ("model_types", "qwen3_moe", "fields: {}, "),
    ],
)
def test_a_name_means_one_entry(tmp_path: Path, section: str, taken: str, fields: str) -> None:
    problem = problems_of(tmp_path, f"{section}:\n  mine:\n    {{{fields}evidence: [x], aliases: [ok, {taken}]}}\n")[0]
    assert problem.line == 3
    assert f"alias {taken!r} already means " in problem.message


TIES = [
    ("{tp: 3}", "{tp: 3}", True),
    ("{tp: 3}", "{tp: 5}", False),
    ("{tp: 3}", "{ep: 3}", True),
    ("{tp: 3, bias: true}", "{tp: 3, bias: false}", False),
    ("{tp: [3, 5]}", "{tp: [5, 7]}", True),
    ("{tp: [3, 5]}", "{tp: [7, 9]}", False),
    ("{model: 'a*'}", "{model: '*b'}", True),
    ("{model: 'a*'}", "{model: 'b*'}", False),
    ("{model: 'a*'}", "{tp: '>=3'}", True),
    ("{aiter: '>=0.1.14'}", "{aiter: '<0.1.14'}", False),
    ("{aiter: '>=0.1.14'}", "{aiter: '<=0.1.14'}", True),
    ("{tp: 3}", "{tp: [3, 5]}", False),
    ("{tp: 3}", "{tp: '>=3'}", False),
    ("{tp: 3, ep: 2}", "{tp: 3}", False),
    ("{env: {ATOM_MOE_GU_ITLV: '0'}}", "{env: {ATOM_MOE_GU_ITLV: '1'}}", False),
    ("{env: {ATOM_MOE_GU_ITLV: '1'}}", "{env: {SGLANG_USE_AITER: '1'}}", True),
    ("{engine: null}", "{engine: vllm}", False),
    ("{engine: null}", "{deployment: null}", True),
    ("{}", "{}", True),
]


@pytest.mark.parametrize(("first", "second", "tie"), TIES)
def test_two_rules_tie_only_if_equally_specific_and_one_query_can_match_both(
    tmp_path: Path, first: str, second: str, tie: bool
) -> None:
    text = rules((first, 7), (second, 7))  # a priority of their own keeps them apart from the book's rules
    if not tie:
        assert {"r1", "r2"} <= set(load_overlay(tmp_path, text).book.rules)
        return
    (problem,) = problems_of(tmp_path, text)
    assert (problem.line, problem.column) == (8, 3)
    assert f"rules 'r1' ({tmp_path / 'overlay.yaml'}:2) and 'r2' are equally specific" in problem.message
    assert "`priority: 1` to win, or the id 'r1' to replace the other" in problem.message


@pytest.mark.parametrize(("first", "second"), [case[:2] for case in TIES if case[2] and case[0] != case[1]])
def test_priority_settles_a_tie(tmp_path: Path, first: str, second: str) -> None:
    assert "r2" in load_overlay(tmp_path, rules((first, 7), (second, 8))).book.rules


def test_all_problems_between_entries_come_at_once(tmp_path: Path) -> None:
    text = RECIPE.replace("e8,", "e9,") + rules(("{arch: gfx990}", 0), ("{tp: 3}", 0)).replace("sep16", "sep61")
    assert [problem.line for problem in problems_of(tmp_path, text)] == [8, 9, 17, 16, 23]


NEVER = [
    ("{tp: 3}", 9, "{tp: [3]}", 0, True),
    ("{tp: 3}", 0, "{tp: [3]}", 9, True),  # exact values come before priority
    ("{tp: [3, 5]}", 9, "{tp: 3}", 0, False),
    ("{tp: [3, 5]}", 0, "{tp: '>=3'}", 0, False),
    ("{arch: [gfx950]}", 1, "{arch: [gfx950], tp: '>=2'}", 0, False),
    ("{engine: 'v*'}", 1, "{engine: 'v*'}", 0, True),
    ("{aiter: '>=0.1.14'}", 1, "{aiter: '>=0.1.14,<0.1.18'}", 0, True),
    ("{aiter: '>=0.1.14,<0.1.18'}", 1, "{aiter: '>=0.1.14'}", 0, False),
    ("{tp: 3, ep: 2}", 1, "{tp: 3}", 0, False),
]


@pytest.mark.parametrize(("first", "high", "second", "low", "covers"), NEVER)
def test_a_rule_that_a_more_specific_one_always_beats_does_not_load(
    tmp_path: Path, first: str, high: int, second: str, low: int, covers: bool
) -> None:
    text = rules((first, high), (second, low))
    if not covers:
        assert {"r1", "r2"} <= set(load_overlay(tmp_path, text).book.rules)
        return
    problems = problems_of(tmp_path, text)
    assert [problem.line for problem in problems] == [8]
    assert "rule 'r2' never wins: 'r1'" in problems[0].message


@pytest.mark.parametrize(
    ("when", "lacks"),
    [
        ("{arch: gfx942, tp: 3}", "gfx942 has no MXFP4 matrix instructions"),
        ("{weight_dtype: [fp8, bf16], tp: 3}", "needs weight_dtype=fp4x2"),
    ],
)
def test_a_rule_whose_recipe_can_never_be_used_does_not_load(tmp_path: Path, when: str, lacks: str) -> None:
    problem = next(problem for problem in problems_of(tmp_path, rules((when, 0))) if "recipe" in problem.message)
    assert (problem.line, problem.column) == (4, 5)
    assert f"rule 'r1' never wins: recipe mxfp4.sep16 {lacks}" in problem.message


def test_an_overlay_may_take_over_a_packaged_rule(tmp_path: Path) -> None:
    """The packaged rule then never wins, which is what the operator wants."""
    when = dict(BOOK.rules["mxfp4.swiglu.a4w4"].when)
    text = (
        f"rules:\n  mine:\n    when: {json.dumps(when)}\n    use: mxfp4.sep16\n    priority: 9\n    because: a test\n"
    )
    assert load_overlay(tmp_path, text).book.rules["mine"].priority == 9


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("{products: [MI355X], fp8: null}", "'MI355X' already means gfx950 (as 'MI355X')"),
        ("{products: [X1], aliases: {X1: [mi-300-x]}, fp8: null}", "'mi-300-x' already means gfx942 (as 'MI300X')"),
        ("{products: [X1], aliases: {X2: [x3]}, fp8: null}", "'X2' is neither a product nor gfx999"),
    ],
)
def test_a_gpu_name_means_one_gpu(tmp_path: Path, entry: str, part: str) -> None:
    overlay = tmp_path / "own.yaml"
    overlay.write_text(f"archs:\n  gfx999: {entry}\n")
    with pytest.raises(BookError) as caught:
        Registry.load([overlay])
    assert part in str(caught.value)


def test_an_overlay_may_replace_the_only_rule_of_a_packaged_recipe(tmp_path: Path) -> None:
    rule = BOOK.rules["atom.triton.gfx1250.swiglu"]
    assert [other.id for other in BOOK.rules.values() if other.use == rule.use] == [rule.id]
    fields = rule.model_dump(mode="json", exclude_unset=True, exclude={"id"}) | {"use": None, "because": "a test"}
    assert load_overlay(tmp_path, json.dumps({"rules": {rule.id: fields}})).book.rules[rule.id].use is None


def test_a_tie_with_a_packaged_rule_is_for_the_overlay_to_settle(tmp_path: Path) -> None:
    """A replaced rule keeps its position in the book, before the packaged one that it ties with."""
    earlier, later = "mxfp4.swiglu.a4w4", list(BOOK.rules)[-1]
    when = json.dumps(dict(BOOK.rules[later].when))
    text = f"rules:\n  {earlier}:\n    when: {when}\n    use: null\n    because: a test\n"
    text += f"    priority: {BOOK.rules[later].priority}\n"
    (problem,) = problems_of(tmp_path, text)
    assert (problem.file, problem.line) == (str(tmp_path / "overlay.yaml"), 2)
    assert f"give {earlier!r} one more field" in problem.message
