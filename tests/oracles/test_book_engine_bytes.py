"""Bytes of vLLM's and SGLang's loaders, step by step.

Each of their methods runs with AITER's own functions.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply
from preshuffle.registry import Decision, Query
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.finding import FindingCode
from support.aiter.aiter_wheel import AiterFunctions
from support.aiter.loader_steps import Steps, random_layer, run
from support.book.engine_table import Case, read_table
from support.book.strategies import REGISTRY

FNUZ = ("fnuz",)
# 11 and 13 groups of 32, 3 experts: nothing divides a tile of 128, and no scale fills its buffer's tail
SMALL: dict[str, Any] = {"hidden_size": 416, "intermediate_size": 352, "num_experts": 3, "top_k": 1, "tp": 1}
WHOLE: dict[str, Any] = {**SMALL, "hidden_size": 512, "intermediate_size": 384}

METHODS: dict[str, tuple[dict[str, Any], Steps]] = {
    # --- vLLM
    "V1 up to 192": ({**SMALL, "intermediate_size": 176}, Steps(pads=(64, 1))),
    "V1 above 192": (SMALL, Steps(pads=(128, 1))),
    "V1 fp16": (SMALL, Steps(pads=(128, 1))),
    "V2 block": (WHOLE, Steps()),
    "V2 block, gfx942": (WHOLE, Steps(values=FNUZ)),
    "V2 channel": (SMALL, Steps()),
    "V2 channel, gfx942": (SMALL, Steps(values=FNUZ)),
    "V2 tensor": (SMALL, Steps(values=("requantize",))),
    "V2 tensor, gfx942": (SMALL, Steps(values=("fnuz", "requantize"))),
    "V3": (WHOLE, Steps(w13="gui", fill=127)),
    "V4 TP 1": (SMALL, Steps("deinterleave", (256, 256), 0, "gui", bias=True)),
    "V4 Quark": (SMALL, Steps("deinterleave", (256, 256), 1, "gui", bias=True)),
    "V4 Quark, GGUU": (SMALL, Steps("", (256, 256), 1, "gui", bias=True)),
    "V5 TP 1": (SMALL, Steps("", (128, 128), 0, "gui")),
    "V5 Swiglu": (SMALL, Steps("", (256, 256), 0, "gui")),
    "V5 fp4x2": (SMALL, Steps("", (128, 128), 0, "sw")),
    "V6 by default": (SMALL, Steps("", (128, 128), 0, "sw")),
    "V6 fp8": (SMALL, Steps("", (128, 128), 0, "gui", w2_scales="e8")),
    "V6 bf16": (SMALL, Steps("", (128, 128), 0, "sw")),
    "V7": (SMALL, Steps("", (128, 128), 0, "sw", "pairs", values=("pack",))),
    "V8 gpt-oss by name": (SMALL, Steps("deinterleave", (128, 256), 0, "sw", bias=True)),
    "V8 Quark, GGUU": (SMALL, Steps("", (128, 256), 1, "sw")),
    "V8 Quark, Silu": (SMALL, Steps("", (128, 256), 1, "sw")),
    "V9": (SMALL, Steps("keep turns", (256, 256), 1, "plain", "n32k4", bias=True)),
    "V9 GGUU": (SMALL, Steps("interleave", (256, 256), 1, "plain", "n32k4", bias=True)),
    "V9 Silu": (SMALL, Steps("", (256, 256), 1, "plain", "n32k4")),
    "V10 gfx950": (SMALL, Steps("keep turns", (256, 256), 1, "plain", "e8", bias=True)),
    "V10 gfx1250": (SMALL, Steps("keep turns", (256, 256), 1, "plain", "n32k8", bias=True)),
    "V11 gfx950": (SMALL, Steps("keep turns", (256, 256), 0, "plain", "e8", bias=True)),
    "V11 gfx950, GGUU": (SMALL, Steps("interleave", (256, 256), 0, "plain", "e8", bias=True)),
    "V11 gfx942": (SMALL, Steps("keep turns", (256, 256), 0, "plain", "plain", bias=True)),
    "V11 gfx1250": (SMALL, Steps("keep turns", (256, 256), 0, "plain", "n32k8", bias=True)),
    "V12": ({**WHOLE, "intermediate_size": 256}, Steps(values=("fold",))),
    "V13": (WHOLE, Steps("", (1, 1), 0, "sw", "pairs", values=("pack",))),
    "V14 shared expert": (SMALL, Steps("", (128, 128), 0, "gui")),
    # --- SGLang
    "S1": (WHOLE, Steps()),
    "S2": (WHOLE, Steps()),
    "S2 gfx942": (WHOLE, Steps(values=FNUZ)),
    "S3": ({**SMALL, "hidden_size": 384}, Steps("", (128, 1), 0, "gui")),
    "S3 apart": ({**SMALL, "hidden_size": 384}, Steps("", (128, 1), 0, "sw")),
    "S3 gfx1250": ({**SMALL, "hidden_size": 384}, Steps("", (128, 1), 0, "gurow")),
    "S5": (WHOLE, Steps(w13="gui", fill=127)),
    "S6": ({**WHOLE, "intermediate_size": 256}, Steps(values=("fold",))),
    "S6 quark_int4fp8": ({**WHOLE, "intermediate_size": 256}, Steps(values=("fold",))),
    "S8": (SMALL, Steps(pads=(128, 1), values=FNUZ)),
    "S9": (SMALL, Steps()),
    "S10": (SMALL, Steps("deinterleave", (256, 256), 127, "gui", bias=True)),
    "S10 apart": (SMALL, Steps("deinterleave", (256, 256), 127, "sw", bias=True)),
    "S10 K3_OPT": (SMALL, Steps("deinterleave", (128, 256), 127, "gui", bias=True)),
    "S10 K3_OPT, apart": (SMALL, Steps("deinterleave", (128, 256), 127, "sw", bias=True)),
    "S10 SiTU, fp8": (SMALL, Steps("", (256, 256), 0, "gui")),
    "S10 SiTU, fp4x2": (SMALL, Steps("", (256, 256), 0, "sw")),
    "S10 SiTU, K3_OPT, fp8": (SMALL, Steps("", (128, 256), 0, "gui")),
    "S12": ({**SMALL, "hidden_size": 384}, Steps("", (256, 1), 0, "sw")),
    "S12 K3_OPT": ({**SMALL, "hidden_size": 384}, Steps("", (128, 1), 0, "sw")),
    "S12 gfx1250": ({**SMALL, "hidden_size": 384}, Steps("", (256, 1), 0, "gurow")),
    "S13": (SMALL, Steps("", (256, 256), 1, "gui", bias=True)),
    "S13 apart": (SMALL, Steps("", (256, 256), 1, "sw", bias=True)),
    "S14": (WHOLE, Steps(w13="gui", fill=127)),
}
# what a recipe's `source` makes of the checkpoint comes to the loader as these
MADE: dict[str, dict[str, Any]] = {
    "V7": {"weight_dtype": "i4x2"},
    "S4": {"weight_dtype": "fp8", "quant_type": "per_1x128"},
    "S5 gfx942": {"weight_dtype": "fp8", "quant_type": "per_1x128"},
    "S7": {"quant_type": "per_Token"},
    "S11": {"weight_dtype": "fp4x2", "quant_type": "per_1x32"},
}
METHODS |= {
    "S4": (WHOLE, Steps()),
    "S5 gfx942": (WHOLE, Steps(values=FNUZ)),
    "S7": (SMALL, Steps(values=("fold_max",))),
    "S11": ({**WHOLE, "hidden_size": 384}, Steps(fill=127)),
}
COLUMNS = {
    "w13_weight_scale": "w13_weight_scale1",
    "w13_weight_scale_2": "w13_weight_scale",
    "w2_weight_scale": "w2_weight_scale1",
    "w2_weight_scale_2": "w2_weight_scale",
}
NAMES: dict[str, dict[str, str]] = {
    "S2": {"w13_weight_scale": "w13_weight_scale_inv", "w2_weight_scale": "w2_weight_scale_inv"},
    "S6": COLUMNS,
    "S6 quark_int4fp8": {
        "w13_weight_scale": "w13_int4_scale",
        "w13_weight_scale_2": "w13_fp8_scale",
        "w2_weight_scale": "w2_int4_scale",
        "w2_weight_scale_2": "w2_fp8_scale",
    },
    "S7": COLUMNS,
    "S10": {"w13_bias": "w13_weight_bias", "w2_bias": "w2_weight_bias"},
    "V13": {"w13_weight": "w13_weight_packed", "w2_weight": "w2_weight_packed"},
}
CASES = {case.id: case for name in ("book_vllm", "book_sglang") for case in read_table(name)}
WEIGHTS = ("w13_weight", "w2_weight")


def codes(decision: Decision) -> set[FindingCode]:
    """Return the codes of a decision's findings: an engine's bytes are compared, wrong call or not."""
    return {finding.code for finding in decision.findings}


@pytest.mark.parametrize("id", METHODS)
def test_a_loaders_bytes(aiter: AiterFunctions, id: str) -> None:
    case, (sizes, steps) = CASES[id], METHODS[id]
    query = Query.parse({**case.query, **sizes, "tokens": [1]})
    decision = REGISTRY.resolve(query)
    assert decision.recipe == case.recipe
    facts = {"quant_type": "per_1x32", "weight_dtype": "fp4x2", "bias": steps.bias, **case.query, **sizes}
    inputs = "w13_input_scale" in decision.tensors
    layer = random_layer({**facts, **MADE.get(id, {})}, steps.values, inputs=inputs)
    tensors = {role: tensor.clone() for role, tensor in layer.items()}
    apply(tensors, decision, allow=codes(decision))
    expected = run(aiter, layer, steps)
    tagged = steps.w13 != "plain" and id != "S14"
    for role, decided in decision.tensors.items():
        ours, theirs = (made[role].contiguous().view(torch.uint8).flatten() for made in (tensors, expected))
        assert torch.equal(ours, theirs), f"{role}: {decided}"
        assert getattr(tensors[role], "is_shuffled", False) == (tagged and role in WEIGHTS)


@pytest.mark.parametrize(("id", "sizes"), [("V5 TP 1", (512, 384)), ("S3", (512, 384)), ("V6 fp8", (384, 384))])
def test_aiter_fills_the_tail_of_an_interleaved_scale(aiter: AiterFunctions, id: str, sizes: tuple[int, int]) -> None:
    """Where nothing but the tail is padded, its bytes are those of AITER's function (127)."""
    case = CASES[id]
    role: Role = "w13_weight_scale" if id.startswith("V6") else "w2_weight_scale"
    fields = {**SMALL, "hidden_size": sizes[0], "intermediate_size": sizes[1]}
    decision = REGISTRY.resolve(Query.parse({**case.query, **fields, "tokens": [1]}))
    layer = random_layer({"quant_type": "per_1x32", "weight_dtype": "fp4x2", "bias": False, **case.query, **fields}, ())
    scale = layer[role].clone()
    apply(layer, decision)
    flat = scale.reshape(-1, scale.shape[-1])
    padded = torch.nn.functional.pad(flat, (0, -flat.shape[1] % 8), value=127)  # as shuffle_scale does by itself
    expected = aiter.shuffle_scale_a16w4(padded, scale.shape[0], role.startswith("w13"))
    assert decision.tensors[role].fill == 127
    assert torch.equal(layer[role].contiguous().view(torch.uint8).flatten(), expected.view(torch.uint8).flatten())


def test_every_method_whose_functions_the_wheel_has_is_compared() -> None:
    """Every method whose functions are in the wheel is compared.

    V14 is V5's and V8's bytes; the rest of each method's cases differ in sizes or in the call only.
    """
    rows = {f"{letter}{number}" for letter in "VS" for number in range(1, 15)}
    assert {id.split()[0] for id in METHODS} == rows


def test_the_steps_are_told_apart(aiter: AiterFunctions) -> None:
    """The reference itself notices another row order, another tile and another padding."""
    case: Case = CASES["V5 TP 1"]
    query = {**case.query, **SMALL}
    layer = random_layer(query, ())
    right = METHODS["V5 TP 1"][1]
    bytes_of = {
        steps: torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in run(aiter, layer, steps).values()])
        for steps in (right, replace(right, rows="deinterleave"), replace(right, w13="sw"), replace(right, fill=1))
    }
    assert len({tuple(data.tolist()) for data in bytes_of.values()}) == len(bytes_of)


@pytest.mark.parametrize("id", NAMES)
def test_the_engines_own_names_are_understood(id: str) -> None:
    case, (sizes, steps) = CASES[id], METHODS[id]
    decision = REGISTRY.resolve(Query.parse({**case.query, **sizes, "tokens": [1]}))
    facts = {"bias": steps.bias, "weight_dtype": "fp4x2", "quant_type": "per_1x32", **case.query, **sizes}
    layer = random_layer({**facts, **MADE.get(id, {})}, steps.values)
    by_role = {role: tensor.clone() for role, tensor in layer.items()}
    by_name = {NAMES[id].get(role, role): tensor.clone() for role, tensor in layer.items()}
    assert set(by_name) >= set(NAMES[id].values())
    apply(by_role, decision, allow=codes(decision))
    apply(by_name, decision, allow=codes(decision))
    for role in decision.tensors:
        ours, theirs = by_role[role], by_name[NAMES[id].get(role, role)]
        assert torch.equal(ours.contiguous().view(torch.uint8), theirs.contiguous().view(torch.uint8)), role
