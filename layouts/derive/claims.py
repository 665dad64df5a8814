"""Claims of the book about what a kernel reads."""

from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.registry.kernels import Families, RuntimeFacts, Stage

FUNCTIONS = {"1": "asm_stage1", "1-stage": "fused_moe_1stage"}
"""AITER's functions that launch assembly kernels of each stage; other kernels' names tell their family."""

QUANT_TYPES = {"row": "per_Token", "block": "per_1x128", "mx": "per_1x32", "group": "per_1x32", "none": "No"}
DTYPES = {"fp8": "fp8", "int8": "i8", "fp4": "fp4x2", "int4": "i4x2", "bf16": "bf16", "f16": "fp16"}


ACTIVATIONS = {"silu": "Silu", "gelu": "Gelu", "swiglu": "Swiglu", "situv2": "Situv2"}


def claimed_stage(families: Families, kernel: DerivableKernel) -> Stage:
    """Return the book's family of a kernel and its layouts.

    Args:
        families: of the book, overlays included.
        kernel: its name, and how it is called.
    """
    family = kernel.kind.family
    facts = RuntimeFacts(
        activation_dtype=DTYPES[family.activation_format or family.weight_format],
        weight_dtype=DTYPES[family.weight_format],
        quant_type=QUANT_TYPES[family.scale],
        gate_mode=kernel.gate_mode,
        is_shuffled="true",
        split_k="false",
        post_activation_layout="",
        activation=ACTIVATIONS.get(kernel.activation, ""),
    )
    parsed = None if family.arguments else families.parse_name(kernel.name)
    function = FUNCTIONS.get(family.stage, "") if parsed is None else families.by_id[parsed[0]].funcs[0]
    if family.stage == "2":
        _, stage, _ = families.stages_of("", "", function, kernel.name, facts)
        return stage or Stage(func=function, kernel=kernel.name, family=None)
    stage, _, _ = families.stages_of(function, kernel.name, None, "", facts)
    return stage
