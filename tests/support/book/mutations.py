"""Ways to break a correct observation, one thing at a time, and the codes that must then be found."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from preshuffle.registry import Decision, Query

Raw = dict[str, Any]
Codes = frozenset[str]
Mutation = Callable[[Raw, Raw, Decision, random.Random], Codes | None]
"""Takes the applied part and the query (both to be changed), returns the codes; None where it does not apply."""

KINDS: dict[str, Mutation] = {}
OTHER = {"sep16": ("gui16", "e8_gui16"), "gui16": ("sep16", "e8")}
READS_OTHER = {
    "sep16": "flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w2_gui",
    "gui16": "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w2",
}
WEIGHTS = ("w13_weight", "w2_weight")


def kind(mutation: Mutation) -> Mutation:
    KINDS[mutation.__name__] = mutation
    return mutation


def codes(*names: str) -> Codes:
    return frozenset(names)


@kind
def wrong_layout(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    tensors = applied["tensors"]
    weight, scale = OTHER[tensors["w13_weight"]["layout"]]
    tensors["w13_weight"]["layout"], tensors["w13_weight_scale"]["layout"] = weight, scale
    return codes("layout_mismatch")


@kind
def wrong_scale_layout(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    scale = OTHER[applied["tensors"]["w13_weight"]["layout"]][1]
    applied["tensors"]["w13_weight_scale"]["layout"] = chosen.choice((scale, "plain", "n32k4"))
    return codes("layout_mismatch")


@kind
def row_interleave_of_another_gpu(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["tensors"]["w13_weight"]["layout"] = "gurow16"
    return codes("layout_mismatch")


@kind
def w2_interleaved(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["tensors"]["w2_weight"]["layout"] = "gui16"
    return codes("layout_mismatch")


@kind
def lost_tag(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    for role in chosen.choice(((WEIGHTS[0],), (WEIGHTS[1],), WEIGHTS)):
        applied["tensors"][role]["is_shuffled"] = False
    applied["events"] = ("apply", "rewrap")
    return codes("tag_lost")


@kind
def false_tag(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["tensors"][chosen.choice(WEIGHTS)]["layout"] = "plain"
    return codes("tag_false")


@kind
def doubled_pad(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    names = [name for name in ("hidden_pad", "intermediate_pad") if applied.get(name)]
    if not names:
        return None
    applied[chosen.choice(names)] *= 2
    return codes("pad_invalid")


@kind
def pad_of_another_rule(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    if decision.tensors["w13_weight"].pad.k != 192:
        return None
    applied["hidden_pad"] = chosen.choice((64, 32, 191))
    return codes("pad_invalid")


@kind
def unreported_pad(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["hidden_pad"] = 0
    return codes("pad_unreported")


@kind
def other_gate_mode(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["gate_mode"] = "separated" if applied["gate_mode"] == "interleave" else "interleave"
    return codes("layout_mismatch", "unsupported")


@kind
def other_kernel(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    name = READS_OTHER[applied["tensors"]["w13_weight"]["layout"]]
    applied["kernels"] = ({"tokens": chosen.choice((256, 1024, 4096)), "stage1": name},)
    return codes("layout_mismatch")


@kind
def another_backend_runs(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["kernels"] = ({"backend": chosen.choice(("triton", "emulation", "TRITON_UNFUSED"))},)
    return codes("layout_mismatch")


@kind
def another_backend_at_some_tokens(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["kernels"] = ({"tokens": 64, "backend": "aiter"}, {"tokens": 4096, "backend": "triton"})
    return codes("layout_mismatch")


@kind
def fallback_on_laid_out_bytes(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["fallback_backend"] = chosen.choice(("triton", "emulation"))
    return codes("fallback_layout")


@kind
def wrong_fill(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    role = chosen.choice(("w13_weight", "w2_weight", "w13_bias", "w2_bias"))
    applied["tensors"][role]["pad_fill"] = chosen.choice(("uninitialised", 127))
    return codes("pad_fill")


@kind
def undefined_scale_fill(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["tensors"][chosen.choice(("w13_weight_scale", "w2_weight_scale"))]["pad_fill"] = "uninitialised"
    return codes("pad_fill")


@kind
def scale_rows(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    scale = applied["tensors"][chosen.choice(("w13_weight_scale", "w2_weight_scale"))]
    experts, rows, k = scale["physical_shape"]
    scale["physical_shape"] = (experts, rows + 256, k)
    return codes("scale_shape")


@kind
def scale_groups(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    scale = applied["tensors"][chosen.choice(("w13_weight_scale", "w2_weight_scale"))]
    experts, rows, k = scale["physical_shape"]
    scale["physical_shape"] = (experts, rows, k + chosen.choice((8, -8)))
    return codes("scale_shape")


@kind
def scale_viewed_back(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    scale = applied["tensors"]["w13_weight_scale"]
    experts, rows, k = scale["physical_shape"]
    scale["physical_shape"] = (experts, rows, k - 6)
    return codes("scale_shape", "pad_required")


@kind
def live_scale_groups(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    scale = applied["tensors"]["w2_weight_scale"]
    experts, rows, k = scale["logical_shape"]
    scale["logical_shape"] = (experts, rows, k + 1)
    return codes("scale_shape")


@kind
def source_order(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["source_order"] = "GGUU" if applied["source_order"] == "GUGU" else "GUGU"
    return codes("source_order_mismatch")


@kind
def strided(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["tensors"][chosen.choice(list(applied["tensors"]))]["contiguous"] = False
    return codes("non_contiguous")


@kind
def moved_under_graphs(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["graphs"] = True
    applied["tensors"][chosen.choice(list(applied["tensors"]))]["address_changed"] = True
    return codes("stale_address")


@kind
def applied_twice(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    between = chosen.choice(((), ("rewrap",), ("sleep", "wake"), ("migrate",)))
    applied["events"] = ("apply", *between, "apply")
    return codes("double_shuffle")


@kind
def raw_write(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["events"] = chosen.choice((("apply", "load_raw"), ("apply", "reload", "load_raw", "apply", "load_raw")))
    return codes("raw_write")


@kind
def dropped_bias(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["bias_passed"] = False
    return codes("contract_mismatch")


@kind
def bias_in_bf16(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["tensors"][chosen.choice(("w13_bias", "w2_bias"))]["dtype"] = "bf16"
    return codes("contract_mismatch")


@kind
def other_limit(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["swiglu_limit"] = 3.5
    return codes("contract_mismatch")


@kind
def wrong_expert_map(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["expert_map"] = "index"
    return codes("contract_mismatch")


@kind
def mask_of_a_mask(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    query["ep"] = max(query.get("ep", 1), 2)
    applied |= {"expert_map": "mask", "mask_ones": 4096, "mask_size": 4096}
    return codes("contract_mismatch")


@kind
def empty_slot(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["tensors"]["w2_weight"]["slots_loaded"] = tuple(range(1, decision.tensors["w2_weight"].logical_shape[0]))
    return codes("load_coverage")


@kind
def router_weight_elsewhere(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    query["router_weight_on_input"], applied["router_weight"] = True, "output"
    return codes("contract_mismatch")


@kind
def wrong_label(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    for role in WEIGHTS:
        applied["tensors"][role] |= {"layout": "plain", "is_shuffled": False}
    applied["tensors"]["w13_weight_scale"]["layout"] = "e8"
    applied |= {"kernels": ({"backend": "triton"},), "swizzle_mx_scale": chosen.choice(("none", "GFX1250_SCALE"))}
    return codes("contract_mismatch")


@kind
def cache_of_another_key(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    right = {"aiter": query["aiter"], "arch": query["arch"], "tp": query["tp"], "ep": query["ep"]}
    wrong = chosen.choice(({"aiter": "0.1.19"}, {"arch": "gfx942"}, {"tp": query["tp"] * 2}, {"ep": 4}))
    applied["cache"] = {**right, **wrong}
    return codes("stale_cache")


@kind
def version_too_old(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    query["aiter"] = chosen.choice(("0.1.13", "0.1.10.post2", "0.1.8"))
    return codes("version_unsupported")


@kind
def partial_load(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    total, ranks = 2 * 2880, query["tp"]
    rows = [total // ranks] * ranks
    rows[-1] = chosen.choice((0, rows[-1] // 2, rows[-1] - 1))
    applied["tensors"]["w13_weight"]["rows_loaded"] = tuple(rows)
    return codes("load_coverage")


@kind
def gpu_without_mxfp4(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    if applied["gate_mode"] == "interleave":
        return None  # bf16 activations on CK-Tile, which gfx942 has
    query |= {"arch": "gfx942", "cu_num": 304}
    return codes("unsupported")


@kind
def not_padded(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    for tensor in applied["tensors"].values():
        tensor["physical_shape"] = tensor["logical_shape"]
    applied |= {"hidden_pad": 0, "intermediate_pad": 0}
    return codes("pad_required")


@kind
def build_for_another_gpu(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    query["env"] = {**query["env"], "GPU_ARCHS": "gfx950;gfx942"}
    return codes("flag_conflict")


@kind
def switches_contradict(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    engine = (query.get("engine") or {}).get("name", "")
    wrong = {
        "atom": {"ATOM_MOE_GU_ITLV": "1" if applied["gate_mode"] == "separated" else "0"},
        "vllm": {"VLLM_ROCM_USE_AITER_MOE": "0"},
        "sglang": {"SGLANG_USE_AITER": "0"},
    }.get(engine)
    if wrong is None:
        return None
    query["env"] = {**query["env"], **wrong}
    return codes("flag_conflict")


@kind
def switch_of_nobody(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    name = chosen.choice(("AITER_MOE_FORCE_BF16_ACT", "AITER_MOE_BF16_FP8_BOUND", "AITER_FUSED_MOE_PRESHUFFLE"))
    query["env"] = {**query["env"], name: "1"}
    return codes("flag_unknown")


@kind
def experts_of_a_view_move(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["eplb"] = True
    applied["tensors"][chosen.choice(("w13_weight_scale", "w2_weight_scale"))]["contiguous"] = False
    return codes("expert_view")


@kind
def renamed_kernel(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    applied["kernels"] = ({"tokens": 64, "stage1": "flydsl_moe1_v2_afp4_wfp4"},)
    return codes("stale_row")


@kind
def fp4_typed_uint8(applied: Raw, query: Raw, decision: Decision, chosen: random.Random) -> Codes | None:
    if applied["gate_mode"] == "interleave":
        return None  # CK-Tile takes fp4 however it is typed
    applied["tensors"]["w13_weight"]["dtype"] = "uint8"
    return codes("unsupported")


def broken(name: str, raw: Raw, decision: Decision, query: Query, chosen: random.Random) -> tuple[Raw, Codes] | None:
    """Break a copy of a correct observation; None where the kind does not apply to it."""
    copy = deepcopy(raw)
    wanted = KINDS[name](copy["applied"], copy["query"], decision, chosen)
    return None if wanted is None else (copy, wanted)
