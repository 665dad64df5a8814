"""Stage rules: the functions and kernels that AITER gives both stages.

A version applies them in its own order; the first one that takes the call decides.

Source: ``get_2stage_cfgs``, aiter/fused_moe.py, of the versions named in ``book/aiter_dispatch.yaml``.
"""

import re
from collections.abc import Callable, Mapping

from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour
from preshuffle.registry.kernels.aiter_versions.dispatch_book import Tier
from preshuffle.registry.kernels.aiter_versions.padding import boundaries, tier_value
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.dispatch.heuristics import k_split
from preshuffle.registry.kernels.dispatch.stage_plan import Plan

FLYDSL1, FLYDSL2, FLYDSL2_LAYOUT = "_flydsl_stage1_wrapper", "_flydsl_stage2_wrapper", "_flydsl_v2_stage2_wrapper"
MXMOE1, MXMOE2 = "_mxfp4_a4w4_stage1_fw", "_mxfp4_a4w4_stage2_fw"
OPUS1, OPUS2 = "opus_a8w4_stage1_wrapper", "opus_a8w4_stage2_wrapper"
CKTILE1, CKTILE2 = "cktile_moe_stage1", "cktile_moe_stage2"
ONE_STAGE, ASM1, CK2 = "fused_moe_1stage", "asm_stage1", "ck_moe_stage2_fwd"

_MXMOE_BLOCK = re.compile(r"^flydsl_mxmoe_g1_a4w4_(\d+)x")
_HALF = frozenset({"bf16", "fp16"})
_FLYDSL_TILE_N = 128
TILE_K2 = 256
"""FlyDSL's heuristic takes this tile of K in stage 2 where it divides ``inter_dim``."""
# Untuned MX shapes on FlyDSL, by padded tokens: (below, tile_m, suffix of stage 1, suffix of stage 2).
_FLYDSL_MX_TIERS: tuple[tuple[float, int, str, str], ...] = (
    (2048, 32, "_w2", "_bnt2"),
    (4096, 64, "_w3_bnt0", ""),
    (16384, 128, "_w2_bnt0", ""),
    (float("inf"), 64, "_w4_bnt0", ""),
)
_INT4_TILE_M = (Tier(below=2048, to=16), Tier(below=16384, to=32), Tier(to=64))
# Pairs that FlyDSL registers with those suffixes; for any other AITER falls back to the name without them.
_FLYDSL_SUFFIXED = frozenset({("fp4x2", "fp4x2"), ("fp8", "fp4x2"), ("fp8", "fp8"), ("bf16", "fp4x2")})
_FLYDSL_NAMES = {"bf16": "bf16", "fp8": "fp8", "fp4x2": "fp4"}


def _mx_half(case: DispatchCase) -> bool:
    return case.quant_type == "per_1x32" and case.call.dtype in _HALF


def _stage2_by_name(case: DispatchCase, flydsl: bool) -> tuple[str, str]:
    name = case.kernel2
    if flydsl and name.startswith("flydsl_"):
        layout = name.startswith("flydsl_moe2_layout_") and "stage2_layout" in case.behaviour.data.features
        return (FLYDSL2_LAYOUT if layout else FLYDSL2), name
    if name.startswith("opus_moe2_") and "opus" in case.behaviour.data.features:
        return OPUS2, name
    if name.startswith("cktile_") and case.behaviour.data.cktile_stage2_names:
        return CKTILE2, ""
    return CK2, name


def mxmoe(case: DispatchCase) -> Plan | None:
    """Plan the a4w4 FlyDSL port (mxmoe), by kernel name."""
    if not (case.kernel1.startswith("flydsl_mxmoe_g") or case.kernel2.startswith("flydsl_mxmoe_g")):
        return None
    match = _MXMOE_BLOCK.match(case.kernel1)
    block_m = int(match[1]) if match else case.block_m
    return Plan(MXMOE1, case.kernel1, MXMOE2, case.kernel2, block_m, case.ksplit, output_aux=True)


def one_stage(case: DispatchCase) -> Plan | None:
    """Plan one kernel for both stages."""
    if not case.run_1stage:
        return None
    return Plan(ONE_STAGE, case.kernel1, None, "", case.block_m, case.ksplit, run_1stage=True)


def flydsl(case: DispatchCase) -> Plan | None:
    """Plan tuned FlyDSL or Opus kernels, by name."""
    opus1 = case.kernel1.startswith("opus_moe1_") and "opus_stage1" in case.behaviour.data.features
    flydsl1 = case.kernel1.startswith("flydsl_")
    if not (opus1 or (case.call.flydsl and (flydsl1 or case.kernel2.startswith("flydsl_")))):
        return None
    func1 = OPUS1 if opus1 else FLYDSL1 if flydsl1 else case.behaviour.data.ck_stage1
    func2, kernel2 = _stage2_by_name(case, True)
    return Plan(func1, case.kernel1, func2, kernel2, case.block_m, case.ksplit)


def _cktile_block_m(case: DispatchCase) -> int:
    return tier_value(case.behaviour.data.cktile_block_m, case.token)


def _cktile_gate_up(case: DispatchCase) -> Plan:
    fp8_block_m = case.behaviour.data.cktile_fp8_block_m
    block_m = fp8_block_m if fp8_block_m is not None and case.activation_dtype == "fp8" else _cktile_block_m(case)
    return Plan(CKTILE1, "", CKTILE2, "", block_m, case.ksplit, split_k=1, post_activation_layout="auto")


def cktile_swiglu(case: DispatchCase) -> Plan | None:
    """Plan CK-Tile for Swiglu before gate_mode existed."""
    return _cktile_gate_up(case) if _mx_half(case) and case.call.activation == "Swiglu" else None


def cktile_gate_up(case: DispatchCase) -> Plan | None:
    """Plan CK-Tile for Swiglu on interleaved MX weights."""
    call = case.call
    if call.gate_mode == "separated" or call.activation != "Swiglu":
        return None
    if call.weight_dtype == "fp8" and not case.behaviour.data.cktile_gate_up_fp8:
        return None
    return _cktile_gate_up(case) if _mx_half(case) else None


def flydsl_int4(case: DispatchCase) -> Plan | None:
    """Plan FlyDSL kernels by heuristic for groupwise int4 weights."""
    if case.quant_type != "per_1x32" or case.call.weight_dtype != "i4x2" or not case.call.flydsl:
        return None
    tile_m = tier_value(_INT4_TILE_M, case.token)
    splits = "int4_k_split" in case.behaviour.data.features
    split = k_split(case) if splits else 0
    tile = f"bf16_t{tile_m}x128x128"
    kernel1 = f"flydsl_moe1_abf16_wint4_{tile}" + (f"_kb{split}" if split > 1 else "")
    return Plan(FLYDSL1, kernel1, FLYDSL2, f"flydsl_moe2_abf16_wint4_{tile}_atomic", tile_m, split)


def _takes_flydsl_mx(case: DispatchCase) -> bool:
    call, data = case.call, case.behaviour.data
    if not (call.flydsl and call.is_shuffled and call.use_g1u1) or call.doweight_stage1 or not _mx_half(case):
        return False
    if case.activation_dtype == "bf16":
        return "situv2_a16w4" in data.features and call.activation == "Situv2" and call.weight_dtype == "fp4x2"
    forced = "AITER_FLYDSL_FORCE" in case.behaviour.env and case.env.get("AITER_FLYDSL_FORCE", "1") == "1"
    wanted = call.activation in data.flydsl_mx_activations or forced
    return (
        wanted
        and case.activation_dtype in data.flydsl_mx_activation_dtypes
        and call.weight_dtype in data.flydsl_mx_weight_dtypes
    )


def flydsl_mx(case: DispatchCase) -> Plan | None:
    """Plan FlyDSL kernels by heuristic for untuned MX weights."""
    if not _takes_flydsl_mx(case):
        return None
    _, tile_m, suffix1, suffix2 = next(tier for tier in _FLYDSL_MX_TIERS if case.token < tier[0])
    if (case.activation_dtype, case.call.weight_dtype) not in _FLYDSL_SUFFIXED:
        suffix1 = suffix2 = ""
    out = "bf16" if case.call.dtype == "bf16" else "f16"
    pair = f"a{_FLYDSL_NAMES[case.activation_dtype]}_w{_FLYDSL_NAMES[case.call.weight_dtype]}_{out}"
    data = case.behaviour.data
    tile_k2 = TILE_K2 if data.flydsl_mx_any_k2 or case.call.inter_dim % TILE_K2 == 0 else 128
    kernel1 = f"flydsl_moe1_{pair}_t{tile_m}x{_FLYDSL_TILE_N}x256{suffix1}" + (
        "_gui" if case.activation_dtype == "fp8" else ""
    )
    kernel2 = f"flydsl_moe2_{pair}_t{tile_m}x{_FLYDSL_TILE_N}x{tile_k2}_atomic{suffix2}"
    case.notes.append("untuned: AITER takes a FlyDSL kernel by heuristic")
    return Plan(FLYDSL1, kernel1, FLYDSL2, kernel2, tile_m, case.ksplit if data.flydsl_mx_keeps_ksplit else -1)


def cktile_split_k(case: DispatchCase) -> Plan | None:
    """Plan CK-Tile split-k for few tokens or bf16 Swiglu."""
    call = case.call
    if not (_mx_half(case) and call.weight_dtype == "fp4x2" and call.is_shuffled):
        return None
    swiglu = call.activation == "Swiglu"
    if swiglu and case.activation_dtype == "fp4x2":
        return None
    knows_layout = "gate_mode" in case.behaviour.data.features
    standard = swiglu and case.activation_dtype in _HALF and knows_layout
    if not standard and case.ksplit <= 1:
        return None
    split = max(case.ksplit, 2 if standard else 1)
    layout = "standard" if standard else "auto" if knows_layout else ""
    return Plan(CKTILE1, "", CKTILE2, "", _cktile_block_m(case), split, split_k=split, post_activation_layout=layout)


def cktile_unshuffled(case: DispatchCase) -> Plan | None:
    """Plan CK-Tile split-k for the remaining Swiglu on MXFP4."""
    call = case.call
    if call.activation != "Swiglu" or call.weight_dtype != "fp4x2" or not _mx_half(case) or case.kernel1:
        return None
    split = max(case.ksplit, 2)
    case.notes.append("SwiGLU MXFP4 that CK's 2-stage kernels do not cover: AITER takes CK-Tile (ROCM-25478)")
    return Plan(CKTILE1, "", CKTILE2, "", _cktile_block_m(case), split, split_k=split, post_activation_layout="auto")


def ck(case: DispatchCase) -> Plan | None:
    """Plan CK's 2-stage kernels, by name or weight dtype."""
    call, data = case.call, case.behaviour.data
    if "ck2stages" not in case.kernel1:
        if case.kernel1 and data.ck_by_weight_needs_no_name:
            return None
        doweight = case.quant_type == "per_1x128" and call.doweight_stage1
        if not doweight and call.weight_dtype not in data.ck_weight_dtypes:
            return None
    func2, kernel2 = _stage2_by_name(case, call.flydsl)
    return Plan(data.ck_stage1, case.kernel1, func2, kernel2, case.block_m, case.ksplit)


def asm(case: DispatchCase) -> Plan | None:
    """Plan the assembly stage 1, whatever the name is."""
    blocks = case.behaviour.data.asm_block_m
    block_m = case.block_m
    if block_m not in blocks:
        block_m = next((block for block in blocks if block_m < block), 128)
    func2, kernel2 = _stage2_by_name(case, False)
    return Plan(ASM1, case.kernel1, func2, kernel2, block_m, case.ksplit)


RULES: dict[str, Callable[[DispatchCase], Plan | None]] = {
    rule.__name__: rule
    for rule in (
        mxmoe,
        one_stage,
        flydsl,
        cktile_swiglu,
        cktile_gate_up,
        flydsl_int4,
        flydsl_mx,
        cktile_split_k,
        cktile_unshuffled,
        ck,
        asm,
    )
}


RULE_TEXTS: Mapping[str, str] = {
    "mxmoe": "Any flydsl_mxmoe_g… name: the a4w4 port, which follows gate_mode at run time and asks for nothing else.",
    "one_stage": "One kernel for both stages.",
    "flydsl": "Tuned FlyDSL or Opus names in either stage.",
    "cktile_swiglu": "Swiglu on MX weights before gate_mode existed: always CK-Tile with its gate/up epilogue.",
    "cktile_gate_up": "Swiglu on interleaved MX weights: CK-Tile with its gate/up epilogue.",
    "flydsl_int4": "Groupwise int4 weights: FlyDSL by heuristic.",
    "flydsl_mx": (
        "MX weights without a row: FlyDSL by heuristic; fp8 activations always get an interleaved (_gui) kernel."
    ),
    "cktile_split_k": (
        "Shuffled MXFP4 weights with few tokens, or Swiglu on separated weights in bf16: CK-Tile split-k."
    ),
    "cktile_unshuffled": (
        "Swiglu on MXFP4 weights that nothing above took: CK-Tile split-k reading gate and up interleaved."
    ),
    "ck": "CK's 2-stage kernels, by name or by weight dtype.",
    "asm": "What is left: the assembly stage 1, whatever the name is.",
}
"""What each rule is for, in a sentence for users."""

OWN_BLOCK_M = frozenset(
    {"cktile_swiglu", "cktile_gate_up", "flydsl_int4", "flydsl_mx", "cktile_split_k", "cktile_unshuffled"}
)
"""Rules that choose the block size themselves; no rule takes a case by its block size."""


def plan_stages(case: DispatchCase) -> Plan:
    """Plan the stages by the first rule that applies; ``asm`` always does."""
    for name in case.behaviour.data.stage_rules:
        plan = RULES[name](case)
        if plan is not None:
            case.rule = name
            return plan
    raise LookupError(f"no rule of {case.behaviour.key} takes the call")


def token_steps(behaviour: Behaviour, rule: str) -> tuple[int, ...]:
    """Return the padded token counts at which a rule's plan may change."""
    if rule == flydsl_mx.__name__:
        return tuple(int(below) for below, *_ in _FLYDSL_MX_TIERS if below != float("inf"))
    if rule == flydsl_int4.__name__:
        return tuple(sorted(boundaries(_INT4_TILE_M, 1 << 31)))
    return tuple(sorted(boundaries(behaviour.data.cktile_block_m, 1 << 31))) if rule in OWN_BLOCK_M else ()
