"""Families of kernels: how each computes; of assembly kernels the arguments, too."""

import re
from dataclasses import dataclass
from typing import Literal

from preshuffle.layouts.derive.errors import DeriveError

ScaleKind = Literal["row", "block", "mx", "group", "none"]
OutputKind = Literal["bf16", "f16", "fp8_block", "fp4_mx", "fp8_mx", "partial"]
Stages = Literal["1", "2", "1-stage"]

STAGE_1_ARGUMENTS = (
    *("out", "x", "w13", "valid", "x_scale", "w13_scale", "zero", "sorted_ids", "tile_experts"),
    *("model_dim", "inter_dim", "tokens", "experts", "x_stride", "w13_stride", "out_stride", "w13_expert_stride"),
    *("w13_scale_stride", "smooth_stride", "top_k", "split_k", "zero", "weights"),
)
"""Arguments of asm_moe_2stage.cu's kernels, 16 bytes each."""

ONE_STAGE_ARGUMENTS = (
    *("out", "x", "w13", "valid", "w2", "x_scale", "w13_scale", "w2_scale", "smooth", "sorted_ids", "weights"),
    *("tile_experts", "model_dim", "inter_dim", "tokens", "experts", "x_stride", "w13_stride", "w2_stride"),
    *("out_stride", "w13_expert_stride", "w2_expert_stride", "w13_scale_stride", "w2_scale_stride", "smooth_stride"),
    *("top_k", "persistent_blocks", "column_blocks"),
)
"""Arguments of asm_fmoe.cu's kernels, 16 bytes each."""


@dataclass(frozen=True, slots=True)
class KernelFamily:
    """Kernels that are called alike.

    Attributes:
        id: of this table.
        file_name: regular expression of the stem; ``tile_m`` and ``tile_n`` are its groups.
        weight_format: key of `weight_formats.FORMATS`.
        scale: of weights: one float32 per row, per 128 x 128 block, or one e8m0 byte (``mx``) or bf16 (``group``) per
            32 elements.
        output: number format; ``mx`` has e8m0 scales per 32 columns, ``partial`` are sums of gate and up.
        between: rounding of the activations between the stages: nothing, or a number format.
        gated: whether w13 has gate and up rows, or gate rows alone.
        routed_weight: whether stage 1 multiplies by the routing weight, before the activation; a kernel of both stages
            then does not multiply the result.
        smooth: whether the activations between the stages are multiplied by a number per expert and column, and the
            input has a row per slot and token, so that it can be scaled by expert.
        activation_format: of the input, where it is not that of the weights.
    """

    id: str
    file_name: str
    stage: Stages
    weight_format: str
    scale: ScaleKind
    output: OutputKind
    arguments: tuple[str, ...]
    between: str = ""
    gated: bool = True
    routed_weight: bool = False
    smooth: bool = False
    activation_format: str = ""

    @property
    def scaled_activations(self) -> bool:
        """Whether the input has scales."""
        return self.scale != "none" and self.activation_format not in ("bf16", "f16")

    @property
    def roles(self) -> tuple[str, ...]:
        """Tensors whose layout can be derived."""
        weights = {"1": ("w13_weight",), "2": ("w2_weight",)}.get(self.stage, ("w13_weight", "w2_weight"))
        if self.scale == "none":
            return weights
        return (*weights, *(f"{role}_scale" for role in weights))


def _stage_1(id: str, kind: str, weight_format: str, scale: ScaleKind, output: OutputKind) -> KernelFamily:
    return KernelFamily(
        id=id,
        file_name=rf"fmoe_stage1_bf16_{kind}_g1u1_(?P<tile_m>\d+)x(?P<tile_n>\d+)(?:_\dtg)?(?:_pf\d)?",
        stage="1",
        weight_format=weight_format,
        scale=scale,
        output=output,
        arguments=STAGE_1_ARGUMENTS,
        routed_weight=kind.endswith("doweight"),
    )


def _one_stage(
    id: str, kind: str, weight_format: str, scale: ScaleKind, output: OutputKind, gated: bool = True
) -> KernelFamily:
    spelling, activation = {"bf16": "bf16", "f16": "fp?16"}[output], "(?P<activation>silu|gelu)"
    tiles = r"(?:_2tg)?_(?P<tile_m>\d+)x(?P<tile_n>\d+)"
    return KernelFamily(
        id=f"{id}_{output}",
        file_name=rf"fmoe_{spelling}_{kind}_{activation}_\dtg(?P<persistent>_ps)?{tiles}",
        stage="1-stage",
        weight_format=weight_format,
        scale=scale,
        output=output,
        arguments=ONE_STAGE_ARGUMENTS,
        between="fp4" if scale == "mx" else "",
        gated=gated,
        routed_weight="tkw1" in kind,
        smooth="multix" in kind or (not gated and scale == "row"),
    )


_ONE_STAGE_KINDS: tuple[tuple[str, str, str, ScaleKind], ...] = (
    ("one_stage_fp8", "pertokenFp8_g1u1(?:_vs)?", "fp8", "row"),
    ("one_stage_int8", "pertokenInt8_g1u1(?:_vs)?", "int8", "row"),
    ("one_stage_fp8_block", "blockscaleFp8_g1u1(?:_vs|_novs)?", "fp8", "block"),
    ("one_stage_mxfp4", "pertokenMXfp4_g1u1(?:_vs|_novs)?", "fp4", "mx"),
    ("one_stage_fp8_routed", "pertokenFp8_g1u1(?:_vs)?_tkw1", "fp8", "row"),
    ("one_stage_fp8_smooth", "pertokenFp8_g1u1(?:_vs)?_multix", "fp8", "row"),
    ("one_stage_int8_smooth", "pertokenInt8_g1u1(?:_vs)?_multix", "int8", "row"),
)
_OUTPUTS: tuple[OutputKind, ...] = ("bf16", "f16")

FAMILIES: tuple[KernelFamily, ...] = (
    _stage_1("stage1_fp8", "pertokenFp8", "fp8", "row", "bf16"),
    _stage_1("stage1_fp8_routed", "pertokenFp8_doweight", "fp8", "row", "bf16"),
    _stage_1("stage1_int8", "pertokenInt8", "int8", "row", "bf16"),
    _stage_1("stage1_fp8_block", "pertokenFp8_blockscale", "fp8", "block", "fp8_block"),
    *(_one_stage(*kind, output) for kind in _ONE_STAGE_KINDS for output in _OUTPUTS),
    *(
        _one_stage("one_stage_int8_gate", "pertokenInt8_g1u0(?:_vs)?", "int8", "row", output, gated=False)
        for output in _OUTPUTS
    ),
    _one_stage("one_stage_no_quantization", "noquantBf16_g1u0(?:_vs)?_atm_inlv", "bf16", "none", "bf16", gated=False),
    _one_stage("one_stage_no_quantization", "noquantFp16_g1u0(?:_vs)?_atm_inlv", "f16", "none", "f16", gated=False),
)


@dataclass(frozen=True, slots=True)
class KernelKind:
    """Family of one kernel and what its name states."""

    family: KernelFamily
    tile_m: int
    tile_n: int
    persistent: bool = False
    activation: str = "silu"


def kind_of(stem: str) -> KernelKind:
    """Return what the name of a code object's file says.

    Raises:
        DeriveError: no family here has that name.
    """
    for family in FAMILIES:
        found = re.fullmatch(family.file_name, stem)
        if found:
            named = found.groupdict()
            activation = named.get("activation") or "silu"
            tiles = int(found["tile_m"]), int(found["tile_n"])
            return KernelKind(family, *tiles, bool(named.get("persistent")), activation)
    known = ", ".join(family.id for family in FAMILIES)
    raise DeriveError(f"{stem}: how this kernel is called is not known here; known families: {known}")
