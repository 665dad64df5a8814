"""Claims of the book about what a kernel reads."""

from preshuffle.layouts.derive.kernels.kernel_family import KernelFamily
from preshuffle.registry.kernels import Families, RuntimeFacts, Stage

FUNCTIONS = {"1": "asm_stage1", "1-stage": "fused_moe_1stage"}
"""AITER's functions that launch the kernels of each stage."""

QUANT_TYPES = {"row": "per_Token", "block": "per_1x128", "mx": "per_1x32", "none": "No"}
DTYPES = {"fp8": "fp8", "int8": "i8", "fp4": "fp4x2", "bf16": "bf16", "f16": "fp16"}


def claimed_stage(families: Families, family: KernelFamily, kernel: str) -> Stage:
    """Return the book's family of a kernel and its layouts.

    Args:
        families: of the book, overlays included.
        family: how the kernel is called.
        kernel: its symbol.
    """
    dtype = DTYPES[family.weight_format]
    facts = RuntimeFacts(
        activation_dtype=dtype,
        weight_dtype=dtype,
        quant_type=QUANT_TYPES[family.scale],
        gate_mode="separated",
        is_shuffled="true",
        split_k="false",
        post_activation_layout="",
    )
    stage, _, _ = families.stages_of(FUNCTIONS[family.stage], kernel, None, "", facts)
    return stage
