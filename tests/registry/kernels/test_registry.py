"""Kernel tables in the registry: several AITER versions at once, and a decision judged at every token count."""

from pathlib import Path

import pytest

from preshuffle.registry import Query, Registry
from preshuffle.registry.kernels import KernelTables, TableError, reachable_buckets
from preshuffle.registry.kernels.tables import installed
from preshuffle.registry.layer import REACH
from preshuffle.registry.resolve import call_of_decision
from support.aiter.kernel_rows import GUI, SEP, table, write

FIELDS = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2"}


def test_each_version_is_answered_from_its_own_tables(tmp_path: Path) -> None:
    new = write(tmp_path / "p", {"token": "512", "kernelName1": SEP, "block_m": "32"})
    old = write(tmp_path / "q", {"token": "512", "kernelName1": SEP, "block_m": "128"})
    registry = Registry.load(kernel_tables=[f"{new}@0.1.20", f"{old}@0.1.18"])
    found = {}
    for aiter in ("0.1.20", "v0.1.20.0", "0.1.18", "0.1.19", None):
        decision = registry.resolve(Query.parse({**FIELDS, "aiter": aiter, "tokens": [300]}))
        found[aiter] = (decision.kernels[0].tuned, decision.kernels[0].block_m)
    assert found["0.1.20"] == found["v0.1.20.0"] == found[None] == (True, 32)
    assert found["0.1.18"] == (True, 128)
    assert found["0.1.19"][0] is None


def test_two_spellings_of_a_version_are_one_set(tmp_path: Path) -> None:
    first = write(tmp_path / "p", {"token": "512", "kernelName1": SEP})
    second = write(tmp_path / "q", {"token": "1024", "kernelName1": SEP})
    loaded = KernelTables.load([f"{first}@0.1.20", f"{second}@v0.1.20.0"])
    assert [len(tables.rows) for tables in loaded.sets] == [2]


def test_tables_on_top_answer_for_their_version_only(tmp_path: Path) -> None:
    base = KernelTables.load([write(tmp_path / "p", {"token": "512", "kernelName1": SEP})])
    upload = KernelTables.from_bytes({"tuned_fmoe.csv": table({})}, aiter="0.1.20")
    both = KernelTables.overlaid(base, [upload])
    assert both.for_version("0.1.20") is upload.sets[0]
    assert both.for_version("0.1.19") is both.for_version(None) is base.sets[0]
    alone = KernelTables.overlaid(None, [upload])
    assert alone.for_version(None) is alone.for_version("0.1.19") is None
    assert len({both.digest, alone.digest, base.digest, upload.digest}) == 4


def test_auto_without_aiter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "DISTRIBUTION", "amd-aiter-that-is-not-there")
    monkeypatch.setattr(installed, "_package_folders", list)
    with pytest.raises(TableError, match="amd-aiter-that-is-not-there: is not installed"):
        Registry.load(kernel_tables="auto")


def test_a_layout_that_no_sampled_token_count_meets_is_found(tmp_path: Path) -> None:
    tables = write(tmp_path / "p", {"token": "512", "kernelName1": GUI})
    registry = Registry.load(kernel_tables=[tables])
    sampled = registry.resolve(Query.parse({**FIELDS, "tokens": [1, 256, 1024]}))
    assert {bucket.stage1.reads["w13_weight"] for bucket in sampled.kernels if bucket.stage1} == {"sep16"}
    assert not [finding for finding in sampled.findings if finding.code == "layout_mismatch"]  # not asked for
    decision = registry.resolve(Query.parse(FIELDS))
    wrong = {finding.role: finding for finding in decision.findings if finding.code == "layout_mismatch"}
    assert set(wrong) == {"w13_weight", "w13_weight_scale"}
    assert "reads gui16 at 257 to 512 tokens" in wrong["w13_weight"].message


def test_numerics_are_judged_at_every_token_count() -> None:
    env = {"GPTOSS_SWIGLU_MXFP4_BF16_BOUND": "5000"}
    query = Query.parse({**FIELDS, "env": env})
    assert not [f for f in Registry.default().resolve(query).findings if f.code == "numerics_deviation"]
    fields = {**FIELDS, "activation_dtype": "bf16", "env": {"AITER_BF16_FP8_MOE_BOUND": "256"}}
    found = Registry.default().resolve(Query.parse(fields)).findings
    (finding,) = [f for f in found if f.code == "numerics_deviation"]
    assert "activations run in fp8 at 256 and more tokens" in finding.message
    stated = Registry.default().resolve(Query.parse({**fields, "tokens": [1]}))
    assert not [f for f in stated.findings if f.code == "numerics_deviation"]


def test_ranges_end_where_nobody_goes() -> None:
    registry, query = Registry.default(), Query.parse(FIELDS)
    call = call_of_decision(registry.resolve(query), query, registry.book, 1)
    assert call is not None
    all_of_them, within = reachable_buckets(call), reachable_buckets(call, upto=REACH)
    assert [bucket.lo for bucket in within] == [bucket.lo for bucket in all_of_them if bucket.lo <= REACH]
    assert within[-1].hi is None
