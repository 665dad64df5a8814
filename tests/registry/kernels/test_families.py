"""Kernel families are entries of the book: an overlay adds, replaces and outranks them, and their slips are found."""

from pathlib import Path

import pytest

from preshuffle.registry import BookError, Observation, Query, Registry
from preshuffle.registry.base.errors import Problem
from preshuffle.registry.kernels import KernelTables, packaged_families
from preshuffle.registry.lint.families import family_problems
from support.aiter.kernel_rows import BASE, SWIGLU, table
from support.book.strategies import BOOK, load_overlay

NAME = "flydsl_moe9_afp4_t32"
FAMILY = """kernel_families:
  flydsl_moe9:
    stage: "1"
    funcs: [_flydsl_stage1_wrapper]
    archs: [gfx950]
    grammar: '^flydsl_moe9_a(?P<a>fp4|fp8)_t(?P<tile_m>\\d+)(?P<gui>_gui)?$'
    encodes: {gui: gate and up alternate}
    row_order: GGUU
    variants:
      - {when: {name.gui: [_gui]}, reads: {w13_weight: gui16, w13_weight_scale: e8_gui16}}
      - reads: {w13_weight: acme8, w13_weight_scale: e8}
layouts:
  acme8: {pattern: "e (nt n8) (kt k16) -> e nt kt n8 k16", unit: byte, k_multiple: 16}
"""
QUERY = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2, tokens=(512,))
ROW = {**BASE, **SWIGLU, "token": "512", "inter_dim": "1536", "kernelName1": NAME}
OBSERVED = {
    "query": {"model": "openai/gpt-oss-120b", "arch": "gfx950", "tp": 2, "aiter": "0.1.20"},
    "applied": {
        "gate_mode": "separated",
        "kernels": [{"tokens": 512, "stage1": NAME}],
        "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}},
    },
}


def problems_of(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(BookError) as caught:
        load_overlay(folder, text)
    return caught.value.problems


def test_what_is_packaged_holds_together() -> None:
    assert [str(problem) for family in BOOK.families for problem in family_problems(BOOK, family)] == []


def test_a_book_without_overlays_has_the_families_that_calls_without_a_book_get() -> None:
    assert list(BOOK.families) == list(packaged_families())


def test_a_name_belongs_to_one_family_whatever_the_order() -> None:
    names = (
        "flydsl_moe2_layout_afp8_wfp4_bf16_t32x128x128_atomic_nt_sbm32",
        "flydsl_moe2_afp8_wfp4_bf16_t32x256x128_atomic_bnt2_persist",
        "opus_moe2_layout_afp8_wfp4_fp8_t64x256x256_sbm64_rbn3584",
        "_ZN5aiter56fmoe_stage1_bf16_pertokenFp8_doweight_g1u1_32x64_4tg_pf3E",
        "_ZN5aiter48fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_32x256E",
    )
    for name in names:
        assert sum(grammar.matches(name) for _, grammar in BOOK.families._grammars) == 1, name


def test_an_overlay_adds_a_family_that_tables_name(tmp_path: Path) -> None:
    tables = KernelTables.from_bytes({"t.csv": table(ROW)})
    assert [hazard.code for hazard in tables.hazards] == ["stale_row"]
    plain = Registry(BOOK, tables).resolve(QUERY).kernels[0].stage1
    assert plain is not None
    assert (plain.kernel, plain.family, plain.reads) == (NAME, None, {})
    registry = Registry(load_overlay(tmp_path, FAMILY).book, tables)
    assert tables.hazards_by(registry.book.families) == ()
    decision = registry.resolve(QUERY)
    stage = decision.kernels[0].stage1
    assert stage is not None
    assert (stage.family, stage.reads) == ("flydsl_moe9", {"w13_weight": "acme8", "w13_weight_scale": "e8"})
    found = [finding for finding in decision.findings if finding.code == "layout_mismatch"]
    assert [(finding.role, finding.expected, finding.actual) for finding in found] == [("w13_weight", "acme8", "sep16")]
    predicted = registry.predict(QUERY, 512).stage1
    assert predicted == stage


def test_an_overlay_adds_a_family_that_deployments_name(tmp_path: Path) -> None:
    observation = Observation.parse(OBSERVED)
    assert "layout_mismatch" not in {finding.code for finding in Registry(BOOK).check(observation).findings}
    report = load_overlay(tmp_path, FAMILY).check(observation)
    found = [finding for finding in report.findings if finding.code == "layout_mismatch"]
    assert [(finding.role, finding.expected) for finding in found] == [("w13_weight", "acme8")]
    elsewhere = load_overlay(tmp_path, FAMILY.replace("archs: [gfx950]", "archs: [gfx942]"))
    assert elsewhere.check(observation).verdict == "unsupported"


def test_an_overlay_replaces_a_family(tmp_path: Path) -> None:
    text = FAMILY.replace("  flydsl_moe9:", "  cktile_stage1:").replace("_flydsl_stage1_wrapper", "cktile_moe_stage1")
    text = text.replace("'^flydsl_moe9_a(?P<a>fp4|fp8)_t(?P<tile_m>\\d+)(?P<gui>_gui)?$'", "'^(?P<gui>)$'")
    registry = load_overlay(tmp_path, text)
    assert len(list(registry.book.families)) == len(list(BOOK.families))
    stage = registry.resolve(Query.parse({**dict(QUERY), "tokens": (1,)})).kernels[0].stage1
    assert stage is not None
    assert (stage.family, stage.reads["w13_weight"]) == ("cktile_stage1", "acme8")


@pytest.mark.parametrize(("priority", "owner"), [(1, "mine"), (-1, "flydsl_moe1")])
def test_the_higher_priority_has_a_name(tmp_path: Path, priority: int, owner: str) -> None:
    text = f"""kernel_families:
  mine:
    stage: "1"
    funcs: [_flydsl_stage1_wrapper]
    grammar: '^flydsl_moe1_a.*$'
    priority: {priority}
    variants: [{{reads: {{w13_weight: plain}}}}]
"""
    families = load_overlay(tmp_path, text).book.families
    parsed = families.parse_name("flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w2")
    assert parsed is not None
    assert parsed[0] == owner


def test_an_overlay_adds_tags_and_packings(tmp_path: Path) -> None:
    text = """kernel_tags:
  mine: {pattern: '^mine_\\d+$', title: not a kernel}
packings:
  mine_packed: {title: two by two}
"""
    reads = FAMILY.replace("w13_weight: acme8", "w13_weight: mine_packed")
    families = load_overlay(tmp_path, text + reads).book.families
    assert families.is_known_name("mine_7")
    assert not BOOK.families.is_known_name("mine_7")


SLIPS = [
    ("grammar: '^flydsl_moe9_a(", "grammar: '^flydsl_moe9_a((", "6:5", "not a regular expression"),
    ("grammar: '^fly", "grammar: 'fly", "6:5", "a grammar is of the whole name; write ^…$"),
    ("archs: [gfx950]", "archs: [gfx950, gfx951]", "5:21", "unknown arch 'gfx951'; valid: gfx"),
    ("encodes: {gui:", "encodes: {guy:", "7:15", "its grammar has no group 'guy'; valid: a, gui, tile_m"),
    ("row_order: GGUU", "ignores: [gate_mod]", "8:15", "a call has no 'gate_mod'"),
    ("name.gui: [", "name.guy: [", "10:17", "nothing is known as 'name.guy'"),
    ("name.gui: [", "gait_mode: [", "10:17", "nothing is known as 'gait_mode'"),
    ("w13_weight: acme8", "w13_weight: acme9", "11:17", "unknown layout 'acme9'; did you mean acme8"),
    ("w13_weight: acme8", "w2_weight: acme8", "11:17", "stage 1 reads no 'w2_weight'"),
    ('stage: "1"', "stage: 1.5", "3:5", "stage: 1.5 is not one of"),
    ("row_order:", "row_ordre:", "8:5", "unknown field"),
    ("archs: [gfx950]", "since: soon", "5:5", "'soon' is not a version"),
    ("_flydsl_stage1_wrapper", "", "4:5", "funcs"),
]


@pytest.mark.parametrize(("old", "new", "place", "says"), SLIPS, ids=[slip[3][:30] for slip in SLIPS])
def test_every_slip_of_an_overlay_is_found_where_it_stands(
    tmp_path: Path, old: str, new: str, place: str, says: str
) -> None:
    assert old in FAMILY
    found = [str(problem) for problem in problems_of(tmp_path, FAMILY.replace(old, new, 1))]
    assert any(f":{place}: " in line and says in line for line in found), found


def test_two_families_for_the_same_names_do_not_load(tmp_path: Path) -> None:
    one = FAMILY.partition("layouts:")[0]
    layouts = FAMILY[len(one) :]
    two = one + one.partition("\n")[2].replace("flydsl_moe9:", "flydsl_moe8:")
    (problem,) = problems_of(tmp_path, two + layouts)
    assert "are for the same names; give" in problem.message
    assert problem.line > 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("kernel_needs:\n  mine:\n    families: [ck_gemm9]\n    needs: [{dimension: inter_dim, multiple: 64}]\n", "3:"),
        ("kernel_labels:\n  mine:\n    pattern: mine\n    families: {'1': ck_gemm9}\n", "4:"),
        ("contracts:\n  mine:\n    code: unsupported\n    when: {family1: ck_gemm9}\n    says: s\n    fix: f\n", "4:"),
    ],
)
def test_who_names_a_family_names_one_that_is_there(tmp_path: Path, text: str, place: str) -> None:
    because = "    because: b\n" if "needs" in text else ""
    (problem,) = problems_of(tmp_path, f"{text}{because}    evidence: [x]\n")
    assert problem.message.startswith("unknown kernel family 'ck_gemm9'; did you mean ck_gemm")
    assert problem.valid[0].startswith("ck_gemm")
    assert str(problem.line) == place.strip(":")
