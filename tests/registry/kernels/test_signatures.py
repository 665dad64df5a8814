"""What a decided call passes to AITER's functions and to engines' wrappers, by release."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import BookError, LayoutError, Query, Registry
from preshuffle.registry.kernels import Argument, installed_package, takes
from preshuffle.registry.values.decision import CallDecision
from support.aiter.trees import wheel_or_skip
from support.book.strategies import load_overlay

REGISTRY = Registry.default()
TABLE = REGISTRY.book.signatures


def call_of(**fields: Any) -> CallDecision:
    query = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2, **fields}
    return REGISTRY.resolve(Query.parse(query), kernels=False).call


def words(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Enumerators by name."""
    return {name: getattr(value, "name", value) for name, value in kwargs.items()}


def test_aiters_function_gets_all_that_was_decided() -> None:
    assert words(call_of().kwargs("aiter.fused_moe", aiter="0.1.20")) == {
        "activation": "Swiglu",
        "quant_type": "per_1x32",
        "doweight_stage1": False,
        "hidden_pad": 192,
        "intermediate_pad": 96,
        "swiglu_limit": 7.0,
        "gate_mode": "separated",
    }


def test_enumerators_have_aiters_numbers() -> None:
    passed = call_of().kwargs()
    assert (passed["activation"].value, passed["quant_type"].value) == (2, 3)
    assert call_of().kwargs("vllm.fused_moe")["activation_method"] == 2


@pytest.mark.parametrize(
    ("function", "fields", "expected"),
    [
        ("vllm.fused_moe", {}, {"quant_method": 3, "gate_mode": "separated", "hidden_pad": 192}),
        ("sglang.AiterMoeQuantInfo", {}, {"quant_type": "per_1x32", "fused_moe_kwargs": {"gate_mode": "separated"}}),
        ("atom.rocm_aiter_fused_moe", {}, {"quant_type": 3, "gate_mode": "separated", "swiglu_limit": 7.0}),
        (
            "vllm.fused_moe",
            {"model": "deepseek-ai/DeepSeek-R1-0528", "activation_dtype": None, "tp": 8},
            {"quant_method": 5, "activation_method": 0},
        ),
        (
            "atom.rocm_aiter_fused_moe",
            {"model": "deepseek-ai/DeepSeek-R1-0528", "activation_dtype": None, "tp": 8},
            {"quant_type": 4, "activation": 0},
        ),
    ],
)
def test_each_wrapper_gets_it_under_its_names(function: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    passed = call_of(**fields).kwargs(function)
    assert {name: passed[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("activation", "aiter", "gate_mode"),
    [
        ("fp4x2", "0.1.13", None),
        ("bf16", "0.1.13", "absent"),
        ("bf16", "0.1.14", "interleave"),
        ("bf16", None, "interleave"),
    ],
)
def test_an_aiter_without_gate_mode_reads_swiglu_alternating(
    activation: str, aiter: str | None, gate_mode: str | None
) -> None:
    call = call_of(activation_dtype=activation)
    if gate_mode is None:
        with pytest.raises(LayoutError, match=r"takes no gate_mode \(since 0.1.14\).*'separated'"):
            call.kwargs(aiter=aiter)
    else:
        assert call.kwargs(aiter=aiter).get("gate_mode", "absent") == gate_mode


def test_a_development_build_is_asked_for_its_parameters() -> None:
    call = call_of(activation_dtype="bf16")
    with pytest.raises(LayoutError, match="is not known by version"):
        call.kwargs(aiter="0.1.14.dev3")
    names = TABLE.find("aiter.fused_moe").arguments
    assert call.kwargs(aiter="0.1.14.dev3", parameters=names)["gate_mode"] == "interleave"
    without = [name for name in names if name not in ("gate_mode", "swiglu_limit")]
    assert "gate_mode" not in call.kwargs(parameters=without)


def test_a_wrapper_that_drops_what_aiter_lacks_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"aiter.fused_moe of aiter 0.1.13 takes no gate_mode"):
        call_of().kwargs("vllm.fused_moe", aiter="0.1.13")


def test_a_wrapper_without_an_argument_leaves_aiters_default() -> None:
    call = call_of().model_copy(update={"swiglu_limit": None})
    passed = call.kwargs("vllm.fused_moe", version="0.23.0", aiter="0.1.20")
    assert "gate_mode" not in passed
    with pytest.raises(LayoutError, match=r"vllm.fused_moe of vllm 0.23.0 takes no gate_mode"):
        call_of(activation_dtype="bf16").kwargs("vllm.fused_moe", version="0.23.0", aiter="0.1.20")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("aiter.fused_mo", "no signature of 'aiter.fused_mo'; did you mean aiter.fused_moe"),
        ("aiter.asm_moe_tkw1", "runs asm_moe_tkw1; the decided call is of fused_moe"),
    ],
)
def test_a_function_of_something_else_is_refused(function: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        call_of().kwargs(function)


def test_a_value_that_a_wrapper_has_no_word_for_is_refused() -> None:
    call = call_of().model_copy(update={"quant_type": "per_Tensor", "gate_mode": "separated"})
    with pytest.raises(LayoutError, match="'per_Tensor' cannot be passed; valid: No, per_Token"):
        call.kwargs("sglang.AiterMoeQuantInfo")


def test_the_installed_aiter_takes_what_the_book_says() -> None:
    folder = wheel_or_skip()
    _, version = installed_package()
    signature = TABLE.find("aiter.fused_moe")
    assert [name for name in signature.arguments if takes(signature, name, version)] == parameters_of(folder)


def parameters_of(folder: Path) -> list[str]:
    tree = ast.parse((folder / "fused_moe.py").read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fused_moe"]
    return [argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)]


OVERLAY = """signatures:
  acme.run:
    title: Acme's wrapper
    owner: acme
    path: acme.moe:run
    function: fused_moe
    calls: aiter.fused_moe
    arguments: {x: caller, up: w13_weight, mode: {carries: gate_mode, spelling: {separated: apart}}}
"""


def test_wrong_signatures_do_not_load(tmp_path: Path) -> None:
    changes = {
        "function: fused_moe": "function: fused_mo",
        "calls: aiter.fused_moe": "calls: aiter.fused",
        "spelling: {separated: apart}": "form: number, enumeration: Gate",
    }
    text = OVERLAY
    for old, new in changes.items():
        text = text.replace(old, new)
    with pytest.raises(BookError) as caught:
        load_overlay(tmp_path, text)
    for message in ("unknown entry point 'fused_mo'", "unknown signature 'aiter.fused'", "unknown enumeration 'Gate'"):
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"carries": "w31_weight"}, "'w31_weight' is nothing to carry"),
        ({"carries": "gate_mode", "form": "number"}, "the form number needs an enumeration"),
    ],
)
def test_an_argument_carries_something_known(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Argument.model_validate(fields)


def test_an_engines_own_wrapper_comes_with_its_book(tmp_path: Path) -> None:
    book = load_overlay(tmp_path, OVERLAY).book
    call = call_of().model_copy(update={"activation": "Silu", "quant_type": "No", "swiglu_limit": None})
    assert call.kwargs("acme.run", signatures=book.signatures) == {"mode": "apart"}
