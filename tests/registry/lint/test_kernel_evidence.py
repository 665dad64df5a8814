"""Evidence on what kernels read: complete, and in agreement with the families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from preshuffle.api.cli import main
from preshuffle.registry import BookError, Observation, Query, Registry
from preshuffle.registry.kernels import DispatchCall, RuntimeFacts, dispatch
from preshuffle.registry.lint import evidence_problems, statements_of

DERIVED: dict[str, Any] = {
    "kind": "derived",
    "kernel": "fmoe_stage1_bf16_pertokenFp8_g1u1_16x128_4tg_pf2",
    "arch": "gfx942",
    "aiter": "0.1.7",
    "sha256": "ab" * 32,
    "date": "2026-11-30",
}
BYTES = {"kind": "bytes", "functions": ["f"], "aiter": "1" * 40, "places": ["https://a.example/b"]}
CALL = DispatchCall(
    gfx="gfx942",
    cu_num=304,
    tokens=64,
    model_dim=4096,
    inter_dim=1536,
    expert=8,
    topk=2,
    activation="Silu",
    weight_dtype="bf16",
    quant_type="No",
)
RUN = {"version": "0.33.0", "aiter": "0.1.20", "layers": ["some-model"], "date": "2026-11-30"}


@pytest.fixture
def overlay(tmp_path: Path) -> Callable[..., Path]:
    def write(section: str = "kernel_evidence", id: str = "mine", **fields: Any) -> Path:
        file = tmp_path / "overlay.yaml"
        file.write_text(yaml.safe_dump({section: {id: fields}}))
        return file

    return write


def checked(capsys: pytest.CaptureFixture[str], *overlays: Path, code: int) -> dict[str, Any]:
    arguments = [argument for file in overlays for argument in ("--book", str(file))]
    assert main(["registry", "check", *arguments, "--json"]) == code
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_every_claim_of_the_packaged_book_has_evidence_that_agrees() -> None:
    book = Registry.load().book
    assert list(evidence_problems(book)) == []
    assert {statement.known for statement in statements_of(book)} <= {"derived", "bytes", "source", "engine"}


@pytest.mark.parametrize("missing", ["kernel", "arch", "aiter", "sha256", "date"])
def test_a_derivation_without_a_field_is_refused(overlay: Callable[..., Path], missing: str) -> None:
    known = {name: value for name, value in DERIVED.items() if name != missing}
    file = overlay(family="asm_stage1", reads={"w13_weight": "sep16"}, known=known)
    with pytest.raises(BookError, match=f"known.derived.{missing}: missing"):
        Registry.load([file])


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({**DERIVED, "sha256": "AB" * 32}, "sha256"),
        ({**DERIVED, "date": "2026-02-30"}, "date"),
        ({**DERIVED, "aiter": "main"}, "aiter"),
        ({**BYTES, "functions": []}, "functions"),
        ({"kind": "bytes", "functions": ["f"], "places": ["p"]}, "known.bytes.aiter: missing"),
        ({"kind": "source"}, "known.source.places: missing"),
        ({"kind": "engine", "places": ["p"]}, "known.engine.engine: missing"),
        ({"kind": "engine", "engine": "vllm", "places": ["p"], "run": {"version": "0.33.0"}}, "run.aiter: missing"),
        ({"kind": "engine", "engine": "vllm", "places": ["p"], "run": RUN}, "what the engine laid out is needed"),
        ({"kind": "believed"}, "'derived', 'bytes', 'source', 'engine'"),
        (DERIVED, "what was derived is needed"),
    ],
)
def test_evidence_that_lacks_something_is_refused(
    overlay: Callable[..., Path], known: dict[str, Any], message: str
) -> None:
    with pytest.raises(BookError, match=message):
        Registry.load([overlay(family="asm_stage1", known=known)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "asm_stage3"}, "unknown kernel family 'asm_stage3'"),
        ({"when": {"quant": ["x"]}}, "nothing is known as 'quant'"),
        ({"reads": {"w2_weight": "sep16"}}, "stage 1 reads no 'w2_weight'"),
        ({"reads": {"w13_weight": "sep17"}}, "unknown layout 'sep17'"),
        ({"known": {**DERIVED, "arch": "gfx1250"}}, "asm_stage1 has no 'gfx1250'"),
    ],
)
def test_evidence_of_something_unknown_is_a_problem(
    overlay: Callable[..., Path], capsys: pytest.CaptureFixture[str], fields: dict[str, Any], message: str
) -> None:
    entry = {"family": "asm_stage1", "reads": {"w13_weight": "sep16"}, "known": DERIVED, **fields}
    report = checked(capsys, overlay(**entry), code=1)
    assert [problem for problem in report["problems"] if message in problem["message"]]


@pytest.mark.parametrize(
    ("family", "role", "wrong"),
    [
        ("asm_stage1", "w13_weight", "gui16"),
        ("asm_1stage", "w2_weight", "plain"),
        ("asm_1stage", "w13_weight_scale", "e8_gui16"),
    ],
)
def test_a_book_that_says_otherwise_than_its_evidence_is_caught(
    overlay: Callable[..., Path], capsys: pytest.CaptureFixture[str], family: str, role: str, wrong: str
) -> None:
    fields = Registry.load().book.entries["kernel_families"][family].model_dump(mode="json", exclude={"id"})
    for variant in fields["variants"]:
        variant["reads"] |= {role: wrong} if role in variant["reads"] else {}
    report = checked(capsys, overlay("kernel_families", family, **fields), code=1)
    assert any(f"{family} says that it reads {role} as {wrong}" in problem["message"] for problem in report["problems"])
    assert any("derived from kernel fmoe_" in problem["message"] for problem in report["problems"])


def test_an_engine_that_was_run_counts_more_than_reading() -> None:
    book = Registry.load().book
    ran = book.kernel_evidence["flydsl.vllm"]
    assert ran.says == "as vllm 0.33.0 lays it out, run on kimi-k2-int4 and compared (2026-11-30)"
    order = [book.kernel_evidence[id] for id in ("triton.e8.bytes", "triton.sglang", "triton.source", "mega.engine")]
    assert sorted(reversed(order), key=lambda entry: entry.strength) == order
    assert [entry.by_reading for entry in order] == [False, False, True, True]
    listed = [statement for statement in statements_of(book) if statement.family == "flydsl" and statement.by_reading]
    assert {statement.layout for statement in listed} == {"plain"}


def test_what_rests_on_reading_alone_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(capsys, code=0)
    assert report["kernel_evidence"]["derived"] > 10
    assert all(item["known"] in ("source", "engine") and item["places"] for item in report["by_reading"])
    assert not [item for item in report["by_reading"] if item["family"] == "flydsl" and item["layout"] == "sep16"]
    assert main(["registry", "check"]) == 0
    assert "what kernels read" in capsys.readouterr().out


def test_an_overlays_family_without_evidence_is_listed_as_not_said(
    overlay: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    variants = [{"reads": {"w13_weight": "sep32"}}]
    file = overlay("kernel_families", "acme", stage="1", funcs=["acme"], grammar="^acme$", variants=variants)
    report = checked(capsys, file, code=0)
    assert report["kernel_evidence"]["not said"] == 1
    assert [item["family"] for item in report["by_reading"] if item["known"] is None] == ["acme"]


def test_answers_tell_the_strongest_evidence_of_their_case(overlay: Callable[..., Path]) -> None:
    choice = dispatch(CALL)
    assert choice.stage1 is not None
    assert choice.stage1.known == dict.fromkeys(choice.stage1.reads, choice.stage1.known["w13_weight"])
    file = overlay(family=choice.stage1.family, reads={"w13_weight": "sep16"}, known=DERIVED)
    book = Registry.load([file]).book
    mine = dispatch(CALL, None, book.families).stage1
    elsewhere = dispatch(CALL.model_copy(update={"gfx": "gfx950", "cu_num": 256}), None, book.families).stage1
    assert mine is not None
    assert elsewhere is not None
    assert (mine.known["w13_weight"], mine.evidence["w13_weight"]) == ("derived", "mine")
    assert "mine" not in elsewhere.evidence.values()


def test_evidence_of_another_layout_than_the_claimed_one_is_not_told(overlay: Callable[..., Path]) -> None:
    file = overlay(family="ck_gemm1", reads={"w13_weight": "gui16"}, known=DERIVED)
    stage = dispatch(CALL, None, Registry.load([file]).book.families).stage1
    assert stage is not None
    assert (stage.family, stage.known["w13_weight"]) == ("ck_gemm1", "bytes")


def test_a_book_loads_without_the_packaged_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    from preshuffle.registry.loading import evidence_section

    monkeypatch.setattr(evidence_section, "packaged_evidence", lambda: pytest.fail("it is read"))
    assert Registry.load().digest


def test_the_digest_counts_evidence_of_overlays_only(overlay: Callable[..., Path]) -> None:
    entry = {"family": "ck_gemm1", "reads": {"w13_weight": "sep16"}, "known": DERIVED}
    changed = Registry.load([overlay(**entry)])
    assert changed.digest != Registry.load().digest
    assert len(changed.book.kernel_evidence) == len(Registry.load().book.kernel_evidence) + 1


def test_evidence_is_of_a_family_or_of_a_backend(overlay: Callable[..., Path]) -> None:
    for owner in ({}, {"family": "ck_gemm1", "backend": "triton"}):
        with pytest.raises(BookError, match="either a family or a backend is needed"):
            Registry.load([overlay(**owner, known=BYTES)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "tritn"}, "unknown backend 'tritn'"),
        ({"when": {"gate_mode": ["separated"]}}, "nothing is known as 'gate_mode'"),
        ({"reads": {"w13_weight": "plane"}}, "unknown layout 'plane'"),
        ({"reads": {"w9_weight": "plain"}}, "triton reads no 'w9_weight'"),
        ({"reads": {"w13_weight": "sep32"}}, "triton says that it reads w13_weight as plain or gurow"),
        ({"known": {**DERIVED, "arch": "gfx11"}}, "triton has no 'gfx11'"),
    ],
)
def test_evidence_of_a_backend_is_held_against_its_claims(
    overlay: Callable[..., Path], fields: dict[str, Any], message: str
) -> None:
    entry = {"backend": "triton", "reads": {"w13_weight": "plain"}, "known": {**DERIVED, "arch": "gfx950"}, **fields}
    problems = list(evidence_problems(Registry.load([overlay(**entry)]).book))
    assert [problem for problem in problems if message in problem.message]


def test_an_overlays_backend_without_evidence_is_listed_as_not_said(overlay: Callable[..., Path]) -> None:
    variants = [{"arch": ["gfx950"], "reads": {"w13_weight": ["sep32", "plain"]}}, {"through": "aiter"}]
    file = overlay("backends", "acme", title="ours", variants=variants, evidence=["https://a.example/b"])
    missing = [item for item in statements_of(Registry.load([file]).book) if item.known is None]
    assert [(item.section, item.family, item.arch, item.layout) for item in missing] == [
        ("backends", "acme", "gfx950", "sep32"),
        ("backends", "acme", "gfx950", "plain"),
    ]


def test_check_tells_how_a_backends_reads_are_known(overlay: Callable[..., Path]) -> None:
    known = {**DERIVED, "arch": "gfx942"}
    when = {"activation": ["Situv2"]}
    registry = Registry.load([overlay(backend="triton", when=when, reads={"w13_weight": "plain"}, known=known)])
    query = {"model": "acme/moe", "arch": "gfx942", "weight_dtype": "fp4x2", "quant_type": "per_1x32"}
    tensors = {"w13_weight": {"layout": "plain"}, "w2_weight": {"layout": "sep32"}}
    applied = {"kernels": [{"backend": "triton"}], "tensors": tensors}
    for activation, expected in (("Situv2", ("derived", "mine")), ("Silu", ("derived", "triton.a16w4.silu.gfx942"))):
        reads = registry.check(
            Observation.parse({"query": {**query, "activation": activation}, "applied": applied})
        ).reads
        assert [(read.role, read.known, read.evidence) for read in reads] == [("w13_weight", *expected)]


def test_a_decision_for_a_backend_says_what_its_kernels_read(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--engine", "atom@0.1.5", "--tp", "1"]
    query = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "engine": "atom@0.1.5", "tp": 1}
    decision = Registry.load().resolve(Query.parse({**query, "env": {"ATOM_USE_TRITON_MOE": "1"}}))
    assert decision.call.backend == "triton"
    layouts = {str(role): tensor.layout for role, tensor in decision.tensors.items()}
    assert {read.role for read in decision.reads} >= {"w13_weight", "w2_weight"}
    assert all(read.layout == layouts[read.role] and read.known for read in decision.reads)
    assert main(["resolve", *options, "--env", "ATOM_USE_TRITON_MOE=1"]) == 0
    assert "kernels of triton read w13 plain" in capsys.readouterr().out


def test_evidence_may_depend_on_the_activation() -> None:
    """A FlyDSL kernel is built otherwise for each activation: what was derived of one is told of that one first."""
    name, families = "flydsl_moe1_afp8_wfp4_bf16_t32x64x256_gui", Registry.load().book.families
    told = {}
    for activation in ("Silu", "Swiglu", "Situv2", ""):
        facts = RuntimeFacts("fp8", "fp4x2", "per_1x32", "interleave", "true", "", "", "gfx950", activation)
        stage, _, _ = families.stages_of("_flydsl_stage1_wrapper", name, None, "", facts)
        told[activation] = stage.evidence["w13_weight"]
    general = "flydsl_moe1.afp8_wfp4.gui.gfx950"
    assert told == {
        "Silu": general,
        "Swiglu": "flydsl_moe1.afp8_wfp4.gui.swiglu.gfx950",
        "Situv2": "flydsl_moe1.afp8_wfp4.gui.situv2.gfx950",
        "": general,
    }
