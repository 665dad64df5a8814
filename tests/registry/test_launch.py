"""How an engine is started for a decision: its ranks, switches and options, and the call of the kernels."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import BookError, NoRecipeError, Query, Registry
from preshuffle.registry.launch import Launch, call_text, launch_of

GPT_OSS: dict[str, Any] = {"model": "openai/gpt-oss-120b", "arch": "gfx950"}
FP8: dict[str, Any] = {"model": "deepseek-ai/DeepSeek-R1-0528", "arch": "gfx942"}
ACME = """
engines:
  acme:
    title: Acme's engine
    first: "1.0"
    newest: "2.0"
    launch:
      command: [acme-serve, "--checkpoint", "{model}", "--http"]
      tp: --shards
      ep: --experts-over
      ep_takes_size: true
    evidence: [https://acme.example]
  quiet:
    title: An engine of which nobody knows how it is started
    first: "1.0"
    newest: "1.0"
    evidence: [https://quiet.example]
"""


def launched(registry: Registry | None = None, **fields: Any) -> Launch:
    registry = registry or Registry.default()
    query = Query.parse(fields)
    return launch_of(query, registry.resolve(query), registry.book)


def words(launch: Launch) -> list[str]:
    assert launch.line is not None, launch.why_not
    return shlex.split(launch.line.replace("\\\n", ""))


VLLM = "VLLM_ROCM_USE_AITER=1 vllm serve deepseek-ai/DeepSeek-R1-0528"
SGLANG = "SGLANG_USE_AITER=1 python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1-0528"
ATOM = "python -m atom.entrypoints.openai_server --model deepseek-ai/DeepSeek-R1-0528"
DP_ATTENTION = {"--enable-dp-attention": "true"}


@pytest.mark.parametrize(
    ("engine", "ranks", "env", "expected"),
    [
        ("vllm", {"tp": 1}, {}, VLLM),
        ("vllm", {"tp": 8}, {}, f"{VLLM} --tensor-parallel-size 8"),
        ("vllm", {"ep": 8}, {}, f"{VLLM} --tensor-parallel-size 8 --enable-expert-parallel"),
        ("vllm", {"ep": 8, "dp": 8}, {}, f"{VLLM} --data-parallel-size 8 --enable-expert-parallel"),
        ("vllm", {"tp": 8, "dp": 2}, {}, f"{VLLM} --tensor-parallel-size 4 --data-parallel-size 2"),
        ("vllm", {"tp": 8, "ep": 8}, {}, f"{VLLM} --tensor-parallel-size 8 --enable-expert-parallel"),
        (
            *("vllm", {"tp": 4, "ep": 8, "dp": 2}, {}),
            f"{VLLM} --tensor-parallel-size 4 --data-parallel-size 2 --enable-expert-parallel",
        ),
        ("sglang", {"tp": 2, "ep": 4}, {}, f"{SGLANG} --tp-size 8 --ep-size 4"),
        ("sglang", {"tp": 8, "dp": 2}, {}, f"{SGLANG} --tp-size 8 --dp-size 2"),
        ("atom", {"ep": 8}, {}, f"{ATOM} --tensor-parallel-size 8 --enable-expert-parallel"),
        ("atom", {"tp": 4, "dp": 2}, {}, f"{ATOM} --tensor-parallel-size 4 --data-parallel-size 2"),
        (
            *("atom", {"tp": 8, "dp": 2}, DP_ATTENTION),
            f"{ATOM} --tensor-parallel-size 4 --data-parallel-size 2 --enable-dp-attention",
        ),
    ],
)
def test_ranks_are_counted_as_the_engine_counts_them(
    engine: str, ranks: dict[str, Any], env: dict[str, str], expected: str
) -> None:
    launch = launched(**FP8, engine=engine, env=env, **ranks)
    assert words(launch) == expected.split()
    assert (launch.why_not, launch.notes) == ("", ())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({**GPT_OSS}, "names no engine"),
        ({**FP8, "engine": "vllm", "tp": 2, "ep": 4}, "--enable-expert-parallel each rank of vllm holds whole experts"),
        ({**FP8, "engine": "vllm", "ep": 8, "dp": 3}, "dp 3 does not divide the 8 ranks"),
    ],
)
def test_what_an_engine_cannot_be_told_is_not_guessed(fields: dict[str, Any], why: str) -> None:
    launch = launched(**fields)
    assert (launch.line, launch.command) == (None, None)
    assert why in launch.why_not
    assert launch.call  # environment and call are there all the same


def test_switches_and_options_of_the_query_are_on_the_line_once() -> None:
    env = {"--moe-backend": "aiter", "VLLM_ROCM_USE_AITER": "1", "VLLM_ROCM_USE_AITER_MOE": "1"}
    launch = launched(**GPT_OSS, engine="vllm@0.33.0", env=env)
    assert words(launch) == [
        *("VLLM_ROCM_USE_AITER=1", "VLLM_ROCM_USE_AITER_MOE=1"),
        *("vllm", "serve", GPT_OSS["model"], "--moe-backend", "aiter"),
    ]
    assert launch.exports == "export VLLM_ROCM_USE_AITER=1\nexport VLLM_ROCM_USE_AITER_MOE=1"
    off = launched(**FP8, engine="atom", env={"--enable-dp-attention": "0", "--enable-expert-parallel": "0"})
    assert words(off)[-1] == FP8["model"]


def test_a_path_with_spaces_and_quotes_survives_the_shell() -> None:
    path = "/models/it's here/gpt-oss"
    sizes: dict[str, Any] = {
        "hidden_size": 4096,
        "intermediate_size": 1536,
        "num_experts": 64,
        "top_k": 4,
        "bias": False,
    }
    facts: dict[str, Any] = {"weight_dtype": "bf16", "quant_type": "No", "activation": "Silu", "gate_up_order": "GGUU"}
    launch = launched(model=path, arch="gfx942", engine="vllm", activation_dtype="bf16", **sizes, **facts)
    assert path in words(launch)


def test_weights_that_the_checkpoint_does_not_have_are_noted() -> None:
    fields: dict[str, Any] = {"model": "Qwen/Qwen3-30B-A3B", "arch": "gfx942", "engine": "vllm"}
    assert launched(**fields).notes == ()
    (note,) = launched(**fields, weight_dtype="fp8", quant_type="per_Token", activation_dtype="fp8").notes
    assert "is published with bf16 experts" in note
    assert "--quantization" in note


def test_an_engine_of_an_overlay_is_started_as_it_says(tmp_path: Path) -> None:
    overlay = tmp_path / "acme.yaml"
    overlay.write_text(
        ACME
        + """
rules:
  acme.all: {when: {arch: gfx942, engine: acme, weight_dtype: fp8}, use: fp8-block.sep16, because: b, evidence: [e]}
  quiet.all: {when: {arch: gfx942, engine: quiet, weight_dtype: fp8}, use: fp8-block.sep16, because: b, evidence: [e]}
"""
    )
    registry = Registry.load([overlay])
    launch = launched(registry, **FP8, engine="acme@2.0", tp=2, ep=2)
    assert words(launch) == [
        *("acme-serve", "--checkpoint", FP8["model"], "--http", "--shards", "4"),
        "--experts-over",
        "2",
    ]
    assert "does not know how acme is told" in launched(registry, **FP8, engine="acme@2.0", dp=2).why_not
    assert "does not know how quiet is started" in launched(registry, **FP8, engine="quiet@1.0").why_not


@pytest.mark.parametrize("command", ["[acme-serve]", '["{model}", "{model}"]', "[]"])
def test_a_command_names_the_model_once(tmp_path: Path, command: str) -> None:
    overlay = tmp_path / "acme.yaml"
    overlay.write_text(ACME.replace('[acme-serve, "--checkpoint", "{model}", "--http"]', command))
    with pytest.raises(BookError, match="command"):
        Registry.load([overlay])


def test_every_call_of_the_book_is_python_with_the_decided_values() -> None:
    registry = Registry.default()
    functions: set[str] = set()
    for model in registry.book.models:
        for arch, engine in (("gfx950", None), ("gfx950", "vllm"), ("gfx942", "sglang"), ("gfx1250", "vllm")):
            query = Query.parse({"model": model, "arch": arch, "engine": engine, "ep": 2})
            try:
                decision = registry.resolve(query, kernels=False, nearest=False)
            except NoRecipeError:
                continue
            call, text = decision.call, call_text(decision, registry.book)
            functions.add(call.function)
            made = ast.parse(text).body[-1]
            assert isinstance(made, ast.Expr)
            assert isinstance(made.value, ast.Call)
            passed = {keyword.arg: ast.unparse(keyword.value) for keyword in made.value.keywords}
            known = registry.book.entries["functions"][call.function].arguments
            assert ast.unparse(made.value.func) == call.function
            assert passed[known.get("activation", "activation")] == f"ActivationType.{call.activation}"
            assert passed[known.get("w13_weight", "w13_weight")] == "w13_weight"
            assert (known.get("w13_bias", "w13_bias") in passed) == ("w13_bias" in decision.tensors and call.bias)
            if "gate_mode" in known:
                assert ("gate_mode" in passed) == call.gate_mode_passed
                assert passed["hidden_pad"] == str(call.hidden_pad)
            assert ("does not know the arguments" in text) == (not known)
    assert {"fused_moe", "asm_moe_tkw1", "moe_gemm_a4w4", "fused_experts"} <= functions
