"""Files hold what ``apply`` gives in memory, for every kind of recipe and every rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from preshuffle.layouts import CheckpointError, stamp_of, write_checkpoint
from preshuffle.layouts.laid_out import (
    LaidOutError,
    RunEvent,
    Share,
    StaleError,
    convert_laid_out,
    lay_out_checkpoint,
    lay_out_share,
)
from preshuffle.layouts.laid_out.runs import rank_role as rank_role_module
from preshuffle.registry import LayoutError, QueryError
from support.tensors.laid_out import (
    DEEPSEEK,
    GPT_OSS,
    LLAMA4,
    QWEN,
    applied_one_by_one,
    checkpoint_with_others,
    contents,
    flat,
    quantized,
    query_of,
    read_stamped,
)

A4W4: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2"}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("scales padded at the tail", GPT_OSS, {**A4W4, "tp": 4}),
    ("gate and up interleaved", GPT_OSS, {"arch": "gfx950", "activation_dtype": "bf16", "ep": 2}),
    ("casts", GPT_OSS, {"arch": "gfx950", "engine": "vllm", "activation_dtype": "bf16", "tp": 2}),
    ("fnuz", quantized(QWEN, "fp8 block"), {"arch": "gfx942", "tp": 2}),
    ("two scales become one", quantized(QWEN, "quark tensor"), {"arch": "gfx942", "ep": 2}),
    ("a scale that the engine makes", quantized(QWEN, "fp8 static"), {"arch": "gfx950", "engine": "sglang", "tp": 2}),
    ("int4", quantized(QWEN, "ct int4"), {"arch": "gfx950", "tp": 2}),
    ("shared expert, fused", quantized(DEEPSEEK, "fp8 block"), {"arch": "gfx950", "ep": 2, "num_experts": 6}),
    ("shared expert, apart", quantized(DEEPSEEK, "fp8 block"), {"arch": "gfx950", "engine": "vllm", "tp": 2}),
    ("merged experts", LLAMA4, {"arch": "gfx950", "tp": 2}),
]


@pytest.mark.parametrize(("config", "fields"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_files_hold_what_apply_gives(
    tmp_path: Path, config: dict[str, Any], fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_role_module, "CHUNK", 1)  # one expert at a time
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config)
    query = query_of(checkpoint, **fields)
    decision = checkpoint.registry.resolve(query)
    allow = [finding.code for finding in decision.findings if finding.severity == "error"]
    manifest = lay_out_checkpoint(checkpoint, tmp_path / "out", workers=2, allow=allow, **fields)
    records = {(one.layer, one.tp_rank, one.ep_rank): one for one in manifest.ranks}
    for layer in checkpoint.experts:
        for tp_rank, ep_rank, wanted in applied_one_by_one(checkpoint, query, decision, layer, allow=allow):
            record = records.pop((layer, tp_rank, ep_rank))
            found = read_stamped(tmp_path / "out" / record.file)
            assert {one.role for one in record.tensors} == set(wanted)
            for one in record.tensors:
                assert flat(found[one.name]).equal(flat(wanted[str(one.role)])), one.role
                assert stamp_of(found[one.name]) == stamp_of(wanted[str(one.role)])
    assert not records


def test_a_fused_shared_expert_needs_slots(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", quantized(DEEPSEEK, "fp8 block"))
    manifest = lay_out_checkpoint(checkpoint, tmp_path / "out", arch="gfx950", ep=2, num_experts=6)
    assert {one.shape[0] for file in manifest.ranks for one in file.tensors if one.role == "w2_weight"} == {3}
    names = {tensor.name for file in manifest.others for tensor in file.tensors}
    assert not any("shared" in name for name in names)


def test_an_index_for_each_rank_and_other_tensors_as_they_are(tmp_path: Path) -> None:
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint")
    out = tmp_path / "out"
    manifest = lay_out_checkpoint(checkpoint, out, tp=2, **A4W4)
    index = json.loads((out / "rank-tp1-ep0.safetensors.index.json").read_text())
    tensors = {name: load_file(out / file)[name] for name, file in index["weight_map"].items()}
    stored: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "checkpoint").glob("*.safetensors"):
        stored |= load_file(path)
    others = {name for name in stored if ".experts." not in name}
    assert set(tensors) == others | {
        f"model.layers.{layer}.mlp.experts.{role}" for layer in (0, 1) for role in checkpoint.experts[0]
    }
    assert all(tensors[name].equal(stored[name]) for name in others)
    assert index["metadata"]["total_size"] == sum(one.nbytes for one in tensors.values())
    assert (out / "tokenizer.json").read_text() == "{}"
    assert manifest.complete
    assert not (out / ".unfinished").exists()
    without = lay_out_checkpoint(checkpoint, tmp_path / "without", others=False, tp=2, **A4W4)
    assert not without.others
    assert not without.complete


def test_headers_say_of_what_they_were_made(tmp_path: Path) -> None:
    from safetensors import safe_open

    checkpoint = write_checkpoint(tmp_path / "checkpoint", GPT_OSS)
    fields: dict[str, Any] = {**A4W4, "tp": 2, "aiter": "0.1.20", "aiter_features": {"gate_mode": True}}
    manifest = lay_out_checkpoint(checkpoint, tmp_path / "out", **fields)
    with safe_open(tmp_path / "out" / manifest.ranks[1].file, "pt") as file:
        said = json.loads(file.metadata()["preshuffle-laid-out"])
    assert (said["tp_rank"], said["tp"], said["layer"]) == (1, 2, 0)
    assert said["recipe"] == manifest.plans[0].recipe
    assert said["registry_digest"] == manifest.registry_digest == checkpoint.registry.digest
    assert said["query"]["aiter_features"] == dict(manifest.aiter_features) == {"gate_mode": True}
    assert said["sources"] == {manifest.sources[0].name: manifest.sources[0].digest}
    assert said["key"] == manifest.ranks[1].key
    assert manifest.plans[0].layouts["w13_weight"] == "sep16"
    assert manifest.plans[0].pads["w13_weight"] == (0, 96)


def test_the_same_again_gives_the_same_bytes_and_the_same_key(tmp_path: Path) -> None:
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint")
    keys = [lay_out_checkpoint(checkpoint, tmp_path / name, tp=2, workers=2, **A4W4).key for name in ("a", "b")]
    assert keys[0] == keys[1]
    before = contents(tmp_path / "a")
    assert before == contents(tmp_path / "b")
    events: list[RunEvent] = []
    again = lay_out_checkpoint(checkpoint, tmp_path / "a", tp=2, listener=events.append, **A4W4)
    assert again.key == keys[0]
    assert {one.event for one in events} == {"started", "resumed", "finished"}
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize(
    ("section", "engine", "scale"),
    [
        ("fp8 block", "sglang", "w13_weight_scale_inv"),
        ("fp8 block", "vllm", "w13_weight_scale_inv"),
        ("fp8 block", "atom", "w13_weight_scale"),
        ("ct block", "sglang", "w13_weight_scale"),
        ("ct block", "vllm", "w13_weight_scale"),
        ("fp8 static", "sglang", "w13_weight_scale1"),
        ("fp8 static", "vllm", "w13_weight_scale"),
    ],
)
def test_names_of_an_engine_s_parameters(tmp_path: Path, section: str, engine: str, scale: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", quantized(QWEN, section))
    manifest = lay_out_checkpoint(checkpoint, tmp_path / "out", arch="gfx950", engine=engine, ep=4)
    names = {one.role: one.name.rpartition(".")[2] for one in manifest.ranks[0].tensors}
    assert (names["w13_weight_scale"], names["w13_weight"]) == (scale, "w13_weight")


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"tp": 2}, QueryError, "arch"),
        ({**A4W4, "tp": 64}, QueryError, "tp"),
        ({"arch": "gfx950", "activation_dtype": "fp4x2", "allow": ["nonsense"]}, LayoutError, "nonsense"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", GPT_OSS)
    with pytest.raises(error, match=message):
        lay_out_checkpoint(checkpoint, tmp_path / "out", **fields)
    assert not (tmp_path / "out").exists()


def test_another_run_s_folder_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", GPT_OSS)
    lay_out_checkpoint(checkpoint, tmp_path / "out", tp=2, **A4W4)
    before = contents(tmp_path / "out")
    with pytest.raises(StaleError, match="another run"):
        lay_out_checkpoint(checkpoint, tmp_path / "out", tp=1, **A4W4)
    with pytest.raises(StaleError, match="another decision"):
        lay_out_checkpoint(checkpoint, tmp_path / "out", tp=2, arch="gfx950", activation_dtype="bf16")
    assert contents(tmp_path / "out") == before
    with pytest.raises(LaidOutError, match="is the checkpoint itself"):
        lay_out_checkpoint(checkpoint, tmp_path / "checkpoint", tp=2, **A4W4)


def test_a_mistaken_run_leaves_a_finished_folder_as_it_was(tmp_path: Path) -> None:
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint")
    another = checkpoint_with_others(tmp_path / "another", seed=1)
    out, fields = tmp_path / "out", {**A4W4, "tp": 2}
    lay_out_checkpoint(checkpoint, out, **fields)
    lay_out_checkpoint(checkpoint, tmp_path / "single", tp=1, **A4W4)
    before = contents(out)
    with pytest.raises(StaleError, match=r"is finished.*differs in: tp \(2, not 4\)\. Choose another folder"):
        lay_out_checkpoint(checkpoint, out, **{**fields, "tp": 4})
    with pytest.raises(StaleError, match=r"arch \(gfx950, not gfx942\).*recipe \(mxfp4\.sep16, not "):
        lay_out_checkpoint(checkpoint, out, **{**fields, "arch": "gfx942", "activation_dtype": "bf16"})
    with pytest.raises(StaleError, match="made of another checkpoint"):
        lay_out_checkpoint(another, out, **fields)
    with pytest.raises(StaleError, match=r"tp \(2, not 8\)"):
        lay_out_share(checkpoint, out, Share(0, 2), **{**fields, "tp": 8})
    with pytest.raises(StaleError, match=r"tp \(2, not 4\)"):
        convert_laid_out(tmp_path / "single", out, tp=4)
    assert contents(out) == before
    lay_out_checkpoint(checkpoint, out, **fields)
    assert contents(out) == before
    (out / min(name for name in before if name.startswith("rank-") and name.endswith("tensors"))).unlink()
    lay_out_checkpoint(checkpoint, out, **fields)  # one that was removed is written again
    assert contents(out) == before


def test_a_dense_model_has_nothing_to_lay_out(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", {**QWEN, "mlp_only_layers": [0], "num_hidden_layers": 2})
    lay_out_checkpoint(checkpoint, tmp_path / "out", arch="gfx950")
    object.__setattr__(checkpoint, "experts", {})
    with pytest.raises(CheckpointError, match="no layer has experts"):
        lay_out_checkpoint(checkpoint, tmp_path / "other", arch="gfx950")
