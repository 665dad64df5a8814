"""The book against AMD's wheel, claim by claim; wrong claims are caught and named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

from preshuffle.layouts.conform import AiterSource, ConformError, ConformOptions, conform, open_aiter
from preshuffle.layouts.conform.derived_kernels import check_kernels
from preshuffle.layouts.conform.dispatch import check_dispatch
from preshuffle.layouts.conform.features import check_features, supposed_version
from preshuffle.layouts.conform.layout_bytes import check_bytes
from preshuffle.layouts.conform.table_files import check_tables
from preshuffle.registry import Registry
from preshuffle.registry.kernels.aiter_versions import behaviour, dispatch_book
from preshuffle.registry.loading import Book, load_book
from preshuffle.registry.values.conformance import CLAIMS, Claim, ConformanceReport
from support.aiter.trees import aiter_tree, wheel_or_skip

CALLS, KERNELS = 250, 1
CHEAP: tuple[Claim, ...] = ("features",)
TRITON: tuple[Claim, ...] = ("triton",)
WITH_BYTES: tuple[Claim, ...] = ("features", "tables", "bytes", "kernel_choices")


@pytest.fixture(scope="module")
def wheel() -> Iterator[AiterSource]:
    wheel_or_skip()
    with open_aiter() as source:
        yield source


@pytest.fixture(scope="module")
def report() -> ConformanceReport:
    wheel_or_skip()
    kinds = tuple(kind for kind in CLAIMS if kind != "triton")
    return conform(options=ConformOptions(claims=kinds, calls=CALLS, kernels=KERNELS))


def overlaid(tmp_path: Path, **sections: Any) -> Book:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return load_book([file])


def entry_of(book: Book, section: str, id: str, **changed: Any) -> dict[str, Any]:
    """Return an entry of the packaged book as an overlay's, with some fields changed."""
    entry = getattr(book, section)[id] if section != "kernel_families" else book.families.by_id[id]
    stated = entry.model_dump(mode="json", exclude_unset=True, exclude={"id"})
    return {section: {id: {**stated, **changed}}}


def test_the_wheel_agrees(report: ConformanceReport) -> None:
    assert report.verdict == "agrees", [result.disagreements[:3] for result in report.claims.values()]
    tried = {kind: result.tried for kind, result in report.claims.items()}
    assert tried["features"] > 20
    assert tried["bytes"] > 130
    assert tried["tables"] > 140
    assert tried["kernel_choices"] == CALLS
    assert tried["derived"] == KERNELS
    assert (report.aiter.id, report.aiter.place) == ("0.1.7.post2.dev18", "installed")


def test_what_was_not_run_says_why(report: ConformanceReport) -> None:
    left = {item.what: item.why for result in report.claims.values() for item in result.not_run}
    assert left["golden layers of every quantization and token bucket"] == "this torch has no ROCm"
    assert "the entry names no function of AITER's" in left["layouts.gui16_klane"]
    assert all(left.values())


def test_a_report_names_no_folder_of_this_machine(report: ConformanceReport) -> None:
    text = report.model_dump_json()
    assert str(wheel_or_skip().parent) not in text
    assert str(Path.home()) + "/" not in text


def test_nothing_of_aiter_is_imported_here(report: ConformanceReport) -> None:
    assert report.claims["bytes"].tried
    assert not [name for name in sys.modules if name.partition(".")[0] in ("aiter", "csrc")]


def test_a_report_survives_json_and_its_digest_guards_it(report: ConformanceReport) -> None:
    again = ConformanceReport.model_validate_json(report.model_dump_json())
    assert again == report
    spoilt = report.model_dump(mode="json")
    spoilt["claims"]["features"]["agreed"] -= 1
    with pytest.raises(ValueError, match="digest is sha256"):
        ConformanceReport.model_validate(spoilt)


def test_seconds_do_not_change_the_digest(report: ConformanceReport) -> None:
    other = report.model_dump(mode="json")
    other["claims"]["features"]["seconds"] = 12.5
    assert ConformanceReport.model_validate(other).digest == report.digest


def test_a_wrong_feature_is_named(wheel: AiterSource, tmp_path: Path) -> None:
    book = overlaid(tmp_path, **entry_of(Registry.default().book, "features", "shuffle_scale", since="0.1.7"))
    (found,) = check_features(wheel, str(wheel.version), book).result().disagreements
    assert found.entry == "features.shuffle_scale.since"
    assert found.there == "lacks aiter.ops.shuffle.shuffle_scale"
    assert found.source == "aiter/ops/shuffle.py"


def test_wrong_layouts_are_named(wheel: AiterSource) -> None:
    wrong = {
        "sep16": "e (nt n16) (kt k32) -> e nt kt n16 k32",
        "e8": "e (nt r2 r16) (kt k2 k4) -> e nt kt k4 r16 r2 k2",
    }
    book = Registry.default().book
    entries = {id: book.layouts[id].model_copy(update={"pattern": pattern}) for id, pattern in wrong.items()}
    result = check_bytes(wheel, SimpleNamespace(layouts=entries)).result()  # type: ignore[arg-type]
    assert {found.entry for found in result.disagreements} == {f"layouts.{id}.pattern" for id in wrong}
    assert all("byte " in found.there and str(found.source).startswith("aiter/") for found in result.disagreements)


@pytest.mark.parametrize(
    ("field", "value", "entry"),
    [
        ("stage_rules", ["one_stage", "ck", "asm"], "aiter_dispatch.timeline[0.1.7].stage_rules"),
    ],
)
def test_a_wrong_dispatch_rule_is_named(
    wheel: AiterSource, monkeypatch: pytest.MonkeyPatch, field: str, value: Any, entry: str
) -> None:
    real = dispatch_book.dispatch_book()
    first = real.timeline[0].model_copy(update={"set": {**real.timeline[0].set, field: value}})
    wrong = real.model_copy(update={"timeline": (first, *real.timeline[1:])})
    monkeypatch.setattr(behaviour, "dispatch_book", lambda: wrong)
    for cached in (behaviour._known, behaviour.behaviour_of):
        cached.cache_clear()
    try:
        result = check_dispatch(wheel, str(wheel.version), load_book([]), 60).result()
    finally:
        monkeypatch.undo()
        for cached in (behaviour._known, behaviour.behaviour_of):
            cached.cache_clear()
    assert result.disagreed
    assert entry in {found.entry for found in result.disagreements}
    assert any(str(found.source).startswith("aiter/fused_moe.py:") for found in result.disagreements)


def test_an_unknown_kernel_name_is_named(wheel: AiterSource, tmp_path: Path) -> None:
    book = Registry.default().book
    id = next(id for id in book.families.by_id if id.startswith("ck"))
    changed = entry_of(book, "kernel_families", id, grammar="no_kernel_is_called_so")
    result = check_tables(wheel, str(wheel.version), overlaid(tmp_path, **changed).families).result()
    assert result.disagreed
    found = result.disagreements[0]
    assert found.entry == "kernel_families.*.grammar"
    assert str(found.source).startswith("aiter/configs/tuned_fmoe.csv:")


def test_a_family_that_reads_something_else_is_named(wheel: AiterSource, tmp_path: Path) -> None:
    pytest.importorskip("tinygrad")
    book = Registry.default().book
    (id,) = [id for id in book.families.by_id if id == "asm_stage1"]
    reads = {"w13_weight": "gui16"}
    wrong = overlaid(tmp_path, **entry_of(book, "kernel_families", id, variants=[{"reads": reads}]))
    result = check_kernels(wheel, wrong, 1).result()
    (found,) = result.disagreements
    assert found.entry == f"kernel_families.{id}.variants"
    assert found.here == "w13_weight is read as gui16"
    assert found.there.startswith("sep16, ")
    assert str(found.source).endswith(".co")


def test_only_what_was_asked_for_is_run() -> None:
    wheel_or_skip()
    made = conform(options=ConformOptions(claims=CHEAP))
    assert list(made.claims) == ["features"]
    assert not made.complete
    with pytest.raises(ConformError, match="no such folder or wheel"):
        conform("/nowhere/aiter")


def test_a_checkout_agrees() -> None:
    """A newer AITER, where there is one: every feature, table and byte case, and a sample of the choices."""
    tree = aiter_tree()
    made = conform(str(tree), options=ConformOptions(claims=WITH_BYTES, calls=800))
    assert made.verdict == "agrees", [result.disagreements[:3] for result in made.claims.values()]
    assert made.aiter.version is not None or made.aiter.supposed is not None


def test_a_checkout_without_version_is_compared_as_one_that_has_its_features(wheel: AiterSource) -> None:
    assert supposed_version(wheel, Registry.default().book) == "0.1.8"


@pytest.mark.slow
def test_triton_kernels_of_a_checkout_agree() -> None:
    """The interpreter takes half a minute: both row orders, swizzled and plain scales, and a spoilt layer."""
    made = conform(str(aiter_tree()), options=ConformOptions(claims=TRITON))
    result = made.claims["triton"]
    assert made.verdict == "agrees", result.disagreements
    assert result.tried >= 27
    assert {note.partition(":")[0] for note in result.notes} >= {"moe_gemm_a16w4", "moe_gemm_a8w4", "moe_gemm_a4w4"}


@pytest.mark.slow
def test_kernels_that_this_aiter_lacks_are_told() -> None:
    wheel_or_skip()
    result = conform(options=ConformOptions(claims=TRITON)).claims["triton"]
    assert result.tried == 0
    assert any("AITER's moe_gemm_a16w4" in item.what for item in result.not_run)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["installed", "tree"])
def test_every_call_of_the_grid_agrees(place: str) -> None:
    chosen = place
    if place == "tree":
        chosen = str(aiter_tree())
    else:
        wheel_or_skip()
    made = conform(chosen, options=ConformOptions(kernels=12))
    assert made.verdict == "agrees", [result.disagreements[:3] for result in made.claims.values()]
    assert made.claims["kernel_choices"].tried > 4000
