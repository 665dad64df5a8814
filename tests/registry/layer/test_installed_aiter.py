"""Which AITER is here, and what can it do: seen in its own sources, or asked of it, and put into a query."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preshuffle.api.cli import main
from preshuffle.layouts import aiter_here
from preshuffle.layouts.loader import aiter_authority
from preshuffle.layouts.probe.runners import missing_features_note
from preshuffle.registry import Applied, NoRecipeError, Observation, Query, QueryError
from preshuffle.registry.kernels import TableError
from preshuffle.registry.kernels.tables import installed
from preshuffle.registry.layer.features import behaves_as, features_of, has_by_version
from preshuffle.registry.layer.installed_aiter import installed_aiter, probe_sources
from support.aiter.aiter_wheel import wheel_root
from support.book.strategies import BOOK, REGISTRY, load_overlay

ASK = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2"}
OPTIONS = ["--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "fp4x2"]
FUSED_MOE = """
import os
if True:
    def fused_moe(hidden, w1, *, gate_mode="separated", bias1=None):
        return os.environ.get("AITER_BF16_FP8_MOE_BOUND", "256")
"""
SHUFFLE = """
from aiter.ops.other import shuffle_scale
try:
    def shuffle_weight(x, layout=(16, 16), **more):
        x.is_shuffled = True
except ImportError:
    pass
class shuffle_scale_n32k4: ...
"""


def package(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An AITER that is a mixture: gate_mode picked into something old."""
    folder = package(tmp_path / "aiter", fused_moe=FUSED_MOE, ops__shuffle=SHUFFLE)
    monkeypatch.setattr(installed, "DISTRIBUTION", "amd-aiter-that-is-not-there")
    monkeypatch.setattr(installed, "_package_folders", lambda: [folder])
    return folder


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "DISTRIBUTION", "amd-aiter-that-is-not-there")
    monkeypatch.setattr(installed, "_package_folders", list)


def test_the_wheel_shows_what_its_version_says() -> None:
    here = installed_aiter(BOOK)
    assert here.folder == wheel_root() / "aiter"
    assert here.version == "0.1.7.post2.dev18"
    by_version = features_of(BOOK, here.version)
    assert dict(here.features) == {name: by_version.has[name] for name in here.features}
    assert {"shuffle_a16w4", "tag_sep16"} == {name for name, seen in here.features.items() if seen}


def test_every_required_feature_can_be_probed() -> None:
    required = {name for recipe in BOOK.recipes.values() for name in recipe.requires.aiter}
    assert [name for name in required if BOOK.features[name].probe is None] == []


def test_sources_are_read_not_run(made: Path) -> None:
    found = probe_sources(BOOK, made)
    seen = {name for name, there in found.items() if there}
    assert seen == {"gate_mode", "bf16_fp8_bound", "shuffle_scale", "shuffle_scale_n32k4", "tag_sep16"}
    assert found["swiglu_limit"] is False
    assert "pad_k_to" not in found  # shuffle_weight takes anything
    assert installed_aiter(BOOK).version is None


@pytest.mark.parametrize("text", ["def fused_moe(:\n", "\udc80", "x = '" + "\x00" + "'\n"])
def test_what_cannot_be_read_tells_nothing(made: Path, text: str) -> None:
    (made / "fused_moe.py").write_bytes(text.encode("utf-8", "surrogateescape"))
    found = probe_sources(BOOK, made)
    assert "gate_mode" not in found
    assert found["shuffle_scale"] is True


def test_a_star_may_bring_anything(made: Path) -> None:
    (made / "ops" / "shuffle.py").write_text("from aiter.ops.other import *\n")
    assert "shuffle_scale" not in probe_sources(BOOK, made)


def test_another_aiter_in_its_place_is_seen(made: Path) -> None:
    assert probe_sources(BOOK, made)["gate_mode"] is True
    (made / "fused_moe.py").write_text("def fused_moe(hidden): pass\n")
    assert probe_sources(BOOK, made)["gate_mode"] is False


def test_what_was_probed_decides() -> None:
    query = Query.parse(
        {**ASK, "aiter": "0.1.13", "aiter_features": {"gate_mode": True, "swiglu_separated_a4w4": True}}
    )
    decision = REGISTRY.resolve(query)
    assert "AITER 0.1.13 has gate_mode, swiglu_separated_a4w4 (probed)" in decision.reason
    assert "by what was probed it is taken as 0.1.14" in decision.reason
    assert [finding.code for finding in decision.findings if finding.severity == "error"] == []
    assert decision.decision_digest == REGISTRY.resolve(Query.parse(ASK)).decision_digest
    half = Query.parse({**ASK, "aiter": "0.1.20", "aiter_features": "gate_mode"})
    assert "AITER 0.1.20 has gate_mode (probed)" in REGISTRY.resolve(half).reason
    assert "AITER 0.1.20 has swiglu_separated_a4w4 (by version)" in REGISTRY.resolve(half).reason
    without = Query.parse({**ASK, "aiter": "0.1.20", "aiter_features": "!gate_mode"})
    with pytest.raises(NoRecipeError, match=r"needs AITER's gate_mode, found 0\.1\.20, probed: it is not there"):
        REGISTRY.resolve(without)
    alone = Query.parse({**ASK, "aiter_features": "!gate_mode"})
    with pytest.raises(NoRecipeError, match="needs AITER's gate_mode, probed: it is not there"):
        REGISTRY.resolve(alone)


def test_a_query_takes_features_as_text_or_as_a_mapping() -> None:
    one = Query.parse({**ASK, "aiter_features": " gate_mode , !situv2"})
    assert one == Query.parse({**ASK, "aiter_features": {"gate_mode": True, "situv2": False}})
    assert hash(one) == hash(Query.parse(json.loads(one.model_dump_json())))
    assert not Query.parse(ASK).aiter_features
    assert not Query.parse({**ASK, "aiter_features": ""}).aiter_features
    with pytest.raises(QueryError, match=r"aiter_features: .* names with commas between them"):
        Query.parse({**ASK, "aiter_features": "gate_mode,,situv2"})
    with pytest.raises(QueryError, match="unknown feature 'gate_modes'; valid: gate_mode"):
        REGISTRY.resolve(Query.parse({**ASK, "aiter_features": "gate_modes"}))


@pytest.mark.parametrize(
    ("aiter", "probed", "taken"),
    [
        ("0.1.13", {"gate_mode": True}, "0.1.14"),
        ("0.1.13", {"gate_mode": True, "opus_stage1": True}, "0.1.19.post1"),
        ("0.1.18", {"gate_mode": True, "opus_stage1": False}, "0.1.18"),
        ("0.1.20.dev7+gabcdef0", {"opus_stage1": True}, "0.1.19.post1"),
        ("0.1.20.dev7+gabcdef0", {"gate_mode": True}, "0.1.20.dev7+gabcdef0"),
        ("0.1.20.dev7+ge4048607a5", {"opus_stage1": True}, "0.1.20.dev7+ge4048607a5"),
        (None, {"gate_mode": True}, None),
    ],
)
def test_a_build_behaves_as_the_first_release_with_all_that_it_has(
    aiter: str | None, probed: dict[str, bool], taken: str | None
) -> None:
    assert behaves_as(BOOK, aiter, probed) == taken


def test_a_development_build_of_an_unknown_commit_is_not_placed() -> None:
    situ, gate = BOOK.features["situv2_a4w4"], BOOK.features["gate_mode"]
    for build in ("0.1.20.dev+gabcdef0", "0.1.20.dev12", "0.1.20rc1.dev3+gabcdef0"):
        assert has_by_version(situ, build) is None
        assert features_of(BOOK, build).how["situv2_a4w4"] == "unknown"
        assert has_by_version(gate, build) is True
    assert has_by_version(situ, "0.1.20.dev+ge4048607a5") is True
    assert has_by_version(situ, "0.1.20rc1") is True
    assert has_by_version(situ, "0.1.19") is False
    assert has_by_version(situ, "0.1.19.post1.dev3+gabcdef0") is None
    assert has_by_version(situ, "0.1.19.post2.dev3+gabcdef0") is True
    assert has_by_version(BOOK.features["mxmoe_a4w4"], "0.1.18rc1") is False
    exact = BOOK.features["exact_activation_rows"]
    assert has_by_version(exact, "0.1.14.dev3+gabcdef0") is None
    assert has_by_version(exact, "0.1.13.post1.dev3") is True
    query = Query(model="moonshotai/Kimi-K3", arch="gfx950", aiter="0.1.20.dev+gabcdef0", activation_dtype="fp4x2")
    with pytest.raises(NoRecipeError, match="a development build: whether it has it is not known by version; probe it"):
        REGISTRY.resolve(query)
    told = query.model_copy(
        update={"aiter_features": Query.parse({**ASK, "aiter_features": "situv2_a4w4"}).aiter_features}
    )
    decision = REGISTRY.resolve(told)
    assert "AITER 0.1.20.dev+gabcdef0 has situv2_a4w4 (probed)" in decision.reason


def test_a_switch_that_an_unplaced_build_may_read_is_not_said_to_be_dead() -> None:
    asked = {"model": "moonshotai/Kimi-K3", "arch": "gfx950", "tokens": [64], "env": {"AITER_SITUV2_A4W4": "1"}}

    def said(**fields: Any) -> str:
        query = Query.parse({**asked, **fields})
        decision = REGISTRY.resolve(query)
        found = [finding.message for finding in decision.findings if finding.code == "flag_unknown"]
        found += [part for part in decision.reason.split("; ") if "is not counted on" in part]
        observed = Observation(query=query, applied=Applied())
        checked = {finding.code for finding in REGISTRY.check(observed).findings}
        return f"{' '.join(found)}{' checked' if 'flag_unknown' in checked else ''}"

    unplaced = "0.1.20.dev+gabcdef0"
    assert said(aiter=unplaced) == (
        f"AITER_SITUV2_A4W4=1 is not counted on: whether aiter {unplaced} reads it is not known: it is a development "
        "build that may be older than 0.1.19.post1"
    )
    assert "changes nothing: aiter 0.1.19 does not read it yet" in said(aiter="0.1.19")
    assert said(aiter="0.1.19").endswith(" checked")
    assert said(aiter="0.1.20.dev+ge4048607a5") == said(aiter="0.1.20") == ""
    assert said(aiter=unplaced, aiter_features="situv2_a4w4") == ""


def test_the_command_line_looks_for_itself(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *OPTIONS, "--aiter", "installed", "--json"]) == 1
    query = json.loads(capsys.readouterr().out)["query"]
    assert query["aiter"] is None
    assert query["aiter_features"]["gate_mode"] is True
    assert main(["resolve", *OPTIONS, "--aiter", "installed", "--json"]) == 1
    assert "needs AITER's swiglu_separated_a4w4, probed: it is not there" in capsys.readouterr().err
    asked = ["--aiter", "installed", "--aiter-features", "swiglu_separated_a4w4"]
    assert main(["resolve", *OPTIONS, *asked, "--json"]) == 0
    assert "AITER has gate_mode, swiglu_separated_a4w4 (probed)" in json.loads(capsys.readouterr().out)["reason"]


def test_the_command_line_knows_the_wheel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *OPTIONS, "--aiter", "installed", "--json"]) == 1
    query = json.loads(capsys.readouterr().out)["query"]
    assert query["aiter"] == "0.1.7.post2.dev18"
    assert query["aiter_features"]["gate_mode"] is False


@pytest.mark.usefixtures("nothing")
def test_without_aiter_there_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resolve", *OPTIONS, "--aiter", "installed"]) == 2
    err = capsys.readouterr().err
    assert "--aiter installed: amd-aiter" in err
    assert "is not installed; name a version instead, as in --aiter 0.1.20" in err
    assert err.count("\n") == 1
    with pytest.raises(TableError, match="is not installed"):
        aiter_here()
    assert missing_features_note() == ()


def test_the_stranger_of_that_name_is_no_aiter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installed, "DISTRIBUTION", "amd-aiter-that-is-not-there")
    monkeypatch.setattr(installed, "_package_folders", lambda: [package(tmp_path / "aiter", core="")])
    assert main(["resolve", *OPTIONS, "--aiter", "installed"]) == 2
    assert "is a package called aiter, but not AMD's" in capsys.readouterr().err


def test_layouts_reads_sources_where_aiter_cannot_be_imported(made: Path) -> None:
    assert torch.version.hip is None
    assert aiter_here() == installed_aiter(BOOK).query_fields()
    (said,) = missing_features_note()
    assert said.startswith("AITER was probed and has not: ")
    assert "swiglu_separated_a4w4" in said
    assert "gate_mode" not in said


def test_layouts_asks_aiter_itself_where_it_can(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fused_moe(hidden: Any, swiglu_limit: float = 0.0) -> None: ...
    def shuffle_weight(x: Any, **more: Any) -> None: ...

    modules = {
        "aiter.fused_moe": SimpleNamespace(fused_moe=fused_moe),
        "aiter.fhmoe": SimpleNamespace(),
        "aiter.ops.shuffle": SimpleNamespace(shuffle_weight=shuffle_weight, moe_shuffle_weight=shuffle_weight),
    }
    monkeypatch.setattr(aiter_authority, "can_import", lambda: True)
    monkeypatch.setattr("importlib.import_module", modules.__getitem__)
    features = aiter_here()["aiter_features"]
    assert (features["gate_mode"], features["swiglu_limit"], features["moe_shuffle_gfx1250"]) == (False, True, True)
    assert features["bf16_fp8_bound"] is True  # a switch is seen in the sources only
    assert "pad_k_to" not in features


def test_an_overlay_says_how_its_own_feature_is_seen(made: Path, tmp_path: Path) -> None:
    text = """features:
  acme:
    title: t
    since: "0.1.30"
    probe: {module: aiter.ops.shuffle, name: shuffle_weight}
"""
    (tmp_path / "book").mkdir()
    registry = load_overlay(tmp_path / "book", text)
    assert installed_aiter(registry.book).features["acme"] is True


def test_a_check_goes_by_what_was_probed() -> None:
    observed: dict[str, Any] = {
        "query": {**ASK, "aiter": "0.1.13"},
        "applied": {
            "gate_mode": "separated",
            "cache": {"aiter": "0.1.13"},
            "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}},
        },
    }
    codes = {finding.code for finding in REGISTRY.check(Observation.parse(observed)).findings}
    assert "version_unsupported" in codes
    observed["query"]["aiter_features"] = "gate_mode,swiglu_separated_a4w4"
    assert REGISTRY.check(Observation.parse(observed)).verdict == "ok"
