"""Grouped path of gfx1250 (FlyDSL TDM kernels): conditions and table row."""

from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.dispatch.stage_plan import Plan
from preshuffle.registry.kernels.tables.index import torch_names
from preshuffle.registry.kernels.tables.rows import GroupedRow

FUNC = "grouped_gemm_gfx1250_a8w4"
DEFAULT_TILE_M = 64
_TRUTHY = frozenset({"1", "true", "True", "yes", "YES"})
_ARCH_VARIABLES = ("GPU_ARCHS", "TARGET_ARCH", "AITER_GPU_ARCHS")


def _switched_on(gfx: str, env: dict[str, str]) -> bool:
    if env.get("AITER_DISABLE_GROUPED_A8W4", "0") == "1":
        return False
    if gfx == "gfx1250":
        return True
    archs = ";".join(env.get(name, "").lower() for name in _ARCH_VARIABLES)
    forced = env.get("AITER_FORCE_GFX1250", "0") in _TRUTHY
    return env.get("AITER_USE_GROUPED_GEMM", "0") in _TRUTHY and ("gfx1250" in archs or forced)


def is_grouped(case: DispatchCase) -> bool:
    """Return whether AITER sends a call to the grouped kernels."""
    call, a, data = case.call, case.activation_dtype, case.behaviour.data
    if "grouped" not in data.features or not call.flydsl or not call.use_g1u1 or call.quant_type != "per_1x32":
        return False
    if call.activation not in data.grouped_activations or call.gate_mode not in data.grouped_gate_modes:
        return False
    if any(all(getattr(call, name) for name in together) for together in data.grouped_refuses):
        return False
    weights = call.weight_dtype == "fp4x2" or (a == "fp8" and call.weight_dtype == "uint8")
    return weights and a in ("fp4x2", "fp8") and _switched_on(case.gfx, case.env)


def grouped_key(case: DispatchCase) -> dict[str, str]:
    """Return a call's key in the grouped table.

    With expert parallelism that table has ``topk`` -1.
    """
    call = case.call
    names = torch_names(case)
    return {
        "gfx": case.gfx,
        "cu_num": str(case.cu_num),
        "token": str(case.token),
        "model_dim": str(call.model_dim),
        "inter_dim": str(call.inter_dim),
        "expert": str(call.expert),
        "topk": "-1" if call.ep else str(call.topk),
        "act_type": f"ActivationType.{call.activation}",
        "dtype": names[call.dtype],
        "q_dtype_a": names[case.activation_dtype],
        "q_dtype_w": names["fp4x2"],
        "q_type": f"QuantType.{call.quant_type}",
        "gate_mode": f"GateMode.{call.gate_mode.upper()}",
    }


def grouped_plan(row: GroupedRow | None) -> Plan:
    """Plan the grouped kernels of a row.

    Without a row AITER takes its default tile, with kernels that have no name.
    """
    if row is None:
        return Plan(FUNC, "", FUNC, "", DEFAULT_TILE_M, 0)
    return Plan(FUNC, row.kernel1, FUNC, row.kernel2, row.tile_m, 0)
