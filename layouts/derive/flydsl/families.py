"""Families of FlyDSL kernels: names, launch arguments, computation; as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from preshuffle.layouts.derive.errors import UnknownKernelError
from preshuffle.layouts.derive.kernels.kernel_family import KernelFamily, KernelKind, OutputKind, ScaleKind, Stages

COMPUTE_UNITS = 8
"""Blocks that share the tiles of a persistent kernel, where its caller counts them."""

FLOATS = ("beta", "inverse_beta", "linear_beta", "inverse_linear_beta", "swiglu_limit")
NUMBERS = (*FLOATS, "tokens", "rows", "model_dim", "inter_dim", "tiles", "slots", "blocks", "no_pad")
"""Arguments of launches that are no addresses."""

STAGE_1 = (
    *("out", "x", "w13", "x_scale", "w13_scale", "sorted_ids", "tile_experts", "weights", "valid", "bias", "out_scale"),
    *("tokens", "rows", "model_dim", "tiles", *FLOATS),
)
STAGE_2 = (
    *("out", "x", "w2", "x_scale", "w2_scale", "sorted_ids", "tile_experts", "weights", "valid", "bias"),
    *("tokens", "model_dim", "inter_dim", "tiles"),
)
PORT_1 = (*("x", "w13", "w13_scale", "tile_experts", "valid", "sorted_ids", "tokens", "blocks", *FLOATS, "out"),)
PORT_2 = (
    *("x", "w2", "w2_scale", "tile_experts", "valid", "sorted_ids", "weights", "tokens", "tiles", "blocks", "out"),
)
MXMOE_1 = (
    *("x", "x_scale", "w13", "w13_scale", "tile_experts", "valid", "sorted_ids", "tokens", "blocks"),
    *("out", "out_scale", "unused"),
)
MXMOE_1_BF16 = ("unused", "x_scale", *MXMOE_1[2:-1], "x")
MXMOE_2 = (
    *("x", "x_scale", "w2", "w2_scale", "tile_experts", "valid", "sorted_ids", "weights", "tokens", "tiles"),
    *("out", "out_scale"),
)
LAYOUT_2 = (
    *("x", "x_scale", "w2", "w2_scale", "tile_experts", "valid", "sorted_ids", "weights", "tokens", "tiles", "slots"),
    *("inter_dim", "model_dim", "no_pad", "no_pad", "out", "out_scale"),
)


@dataclass(frozen=True, slots=True)
class Builder:
    """AITER's functions that read a kernel's name and build it.

    Attributes:
        names: module and function that return the name's parameters.
        compiles: module and function that build the kernel.
        sizes: keyword of the latter for each size of a layer.
        fixed: further keywords.
        renamed: keywords for parameters of the name that are called otherwise there.
        interleave: keyword that says that gate and up alternate, where the call decides.
    """

    names: tuple[str, str]
    compiles: tuple[str, str]
    sizes: Mapping[str, str]
    fixed: Mapping[str, object] = field(default_factory=dict)
    interleave: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlydslFamily:
    """FlyDSL kernels that are called alike.

    Attributes:
        family: names and computation.
        arguments: of the host function, without the stream.
        pointers: whether addresses are passed as pointers, or as numbers.
        sorted_input: whether rows of the input are those of the tiles.
        sorted_output: whether rows of the output are.
        plain_scales: whether scales of the output are in its own order.
        least_model_dim: K of the smallest layer that stage 1 can be built for.
        scale_tile_rows: rows that a tile takes among the scales of the output, at least.
        block_columns: columns that a block computes, where the caller counts the blocks; 0: the name's ``tile_n``.
    """

    family: KernelFamily
    builder: Builder
    arguments: tuple[str, ...]
    pointers: bool = True
    sorted_input: bool = False
    sorted_output: bool = False
    plain_scales: bool = False
    least_model_dim: int = 512
    block_columns: int = 0
    scale_tile_rows: int = 0


_SIZES = {"model_dim": "model_dim", "inter_dim": "inter_dim", "experts": "experts", "top_k": "topk"}
_MX_SIZES = {"model_dim": "D_HIDDEN", "inter_dim": "D_INTER", "experts": "NE", "top_k": "TOPK"}
_NAMES = ("aiter.ops.flydsl.moe_kernels", "get_flydsl_kernel_params")
BUILD_1 = Builder(
    _NAMES, ("aiter.ops.flydsl.moe_kernels", "compile_flydsl_moe_stage1"), _SIZES, {"doweight_stage1": False}
)
BUILD_1_SPLIT = replace(BUILD_1, fixed={"doweight_stage1": False, "out_dtype": "bf16"})
BUILD_2 = Builder(
    _NAMES, ("aiter.ops.flydsl.moe_kernels", "compile_flydsl_moe_stage2"), _SIZES, {"doweight_stage2": True}
)
BUILD_MXMOE_1 = Builder(
    ("aiter.ops.flydsl.mxfp4_kname", "_parse_mxfp4_g1_kname"),
    ("aiter.ops.flydsl.kernels.mxfp4_gemm1", "compile_gemm1_a4w4_port"),
    _MX_SIZES,
    {"BN": 256, "BK": 256},
    interleave="interleave",
)
BUILD_MXMOE_2 = Builder(
    ("aiter.ops.flydsl.mxfp4_kname", "_parse_mxfp4_g2_kname"),
    ("aiter.ops.flydsl.kernels.mxfp4_gemm2", "compile_gemm2_a4w4_port"),
    {**_MX_SIZES, "model_dim": "N_OUT"},
    {"BN": 256, "BK": 256, "epilog": "atomic"},
)
BUILD_MXMOE_2_ROWS, BUILD_MXMOE_2_FP4 = (
    replace(BUILD_MXMOE_2, fixed={**BUILD_MXMOE_2.fixed, "epilog": epilog})
    for epilog in ("nonatomic", "nonatomic_mxfp4")
)
BUILD_LAYOUT_2 = Builder(
    ("aiter.ops.flydsl.mxfp4_kname", "parse_flydsl_v2_gemm2_kernel"),
    ("aiter.ops.flydsl.kernels.mxmoe_dispatcher", "get_g2"),
    {"model_dim": "HIDDEN_MAX", "inter_dim": "INTER_MAX", "experts": "NE", "top_k": "topk"},
    {"g2_kstatic": True, "cu_num": COMPUTE_UNITS},
    renamed={
        **{"tile_m": "BM", "tile_n": "BN", "tile_k": "BK", "sort_block_m": "SBM"},
        **{"bf16_lds": "g2_bf16_lds", "spart": "g2_spart"},
    },
)

_TILES = r"t(?P<tile_m>\d+)x(?P<tile_n>\d+)x(?P<tile_k>\d+)"
_OPTIONS_1 = r"(?:_w\d)?{split}(?:_bnt\d)?(?:_go)?(?:_gui)?(?:_xcd\d+)?(?:_kw(?P<k_parts>\d+))?"
_OPTIONS_2 = r"(?:_bnt\d)?(?:_xcd\d+)?(?:_persist)?(?:_async_w\d_cumul\d)?"
_SORT = r"(?:_sbm(?P<sorted_rows>\d+))?"
_OUTPUTS: tuple[OutputKind, ...] = ("bf16", "f16")
_QUANTIZED: tuple[tuple[str, OutputKind], ...] = (("_fp4", "fp4_mx"), ("_fp8", "fp8_mx"))


def _family(
    id: str, name: str, stage: Stages, formats: tuple[str, str], output: OutputKind, scale: ScaleKind = "mx"
) -> KernelFamily:
    activations, weights = formats
    return KernelFamily(
        id=id,
        file_name=name,
        stage=stage,
        weight_format=weights,
        scale=scale,
        output=output,
        arguments=(),
        activation_format=activations,
    )


def _stage_1(activations: str, weights: str) -> tuple[FlydslFamily, ...]:
    start, formats = f"flydsl_moe1_a{activations}_w{weights}", (activations, weights)
    whole, parts = _OPTIONS_1.format(split=""), _OPTIONS_1.format(split=r"_kb(?P<k_batch>\d+)")
    plain = [_family(f"{start}_{out}", f"{start}_{out}_{_TILES}{whole}{_SORT}", "1", formats, out) for out in _OUTPUTS]
    quantized = [
        _family(f"{start}{suffix}", f"{start}_bf16_{_TILES}{whole}{suffix}{_SORT}", "1", formats, out)
        for suffix, out in _QUANTIZED
    ]
    split = _family(f"{start}_split", f"{start}_bf16_{_TILES}{parts}(?:_fp[48])?{_SORT}", "1", formats, "partial")
    called = tuple(FlydslFamily(family, BUILD_1, STAGE_1) for family in (*plain, *quantized))
    return (*called, FlydslFamily(split, BUILD_1_SPLIT, STAGE_1))


def _stage_2(activations: str, weights: str) -> tuple[FlydslFamily, ...]:
    start = f"flydsl_moe2_a{activations}_w{weights}"
    return tuple(
        FlydslFamily(
            _family(
                f"{start}_{out}",
                f"{start}_{out}_{_TILES}_(?P<mode>atomic|reduce){_OPTIONS_2}{_SORT}",
                "2",
                (activations, weights),
                out,
            ),
            BUILD_2,
            STAGE_2,
        )
        for out in _OUTPUTS
    )


def _layout_2(activations: str, weights: str) -> FlydslFamily:
    start = f"flydsl_moe2_layout_a{activations}_w{weights}"
    options = (
        r"_(?P<mode>atomic|reduce)(?P<persist>_persist)?(?:_nt)?(?:_sbm(?P<sorted_rows>\d+))?(?:_bf16lds)?(?:_sp\d+)?"
    )
    family = _family(start, f"{start}_bf16_{_TILES}{options}", "2", (activations, weights), "bf16")
    return FlydslFamily(family, BUILD_LAYOUT_2, LAYOUT_2, pointers=False, sorted_input=True)


def _ports(weights: str, scale: ScaleKind) -> tuple[FlydslFamily, ...]:
    formats = ("bf16", weights)
    first, second = f"flydsl_moe1_abf16_w{weights}", f"flydsl_moe2_abf16_w{weights}"
    options = _OPTIONS_1.format(split="")
    return (
        FlydslFamily(
            _family(first, f"{first}_bf16_{_TILES}{options}", "1", formats, "bf16", scale),
            BUILD_1,
            PORT_1,
            pointers=False,
            sorted_output=True,
        ),
        FlydslFamily(
            _family(second, f"{second}_bf16_{_TILES}_atomic{_OPTIONS_2}", "2", formats, "bf16", scale),
            BUILD_2,
            PORT_2,
            pointers=False,
            sorted_input=True,
        ),
    )


_MXMOE_OPTIONS = r"(?:_nt)?(?:_xcd\d+)?"
_MXMOE_NAME = r"a4w4_(?P<tile_m>\d+)x(?P<tile_n>\d+)x(?P<tile_k>\d+)"


def _mxmoe() -> tuple[FlydslFamily, ...]:
    first, second = rf"flydsl_mxmoe_g1_{_MXMOE_NAME}", rf"flydsl_mxmoe_g2_{_MXMOE_NAME}"
    by_row: tuple[tuple[str, str, OutputKind, Builder], ...] = (
        ("rows", "", "bf16", BUILD_MXMOE_2_ROWS),
        ("fp4_rows", "_f4out", "fp4_mx", BUILD_MXMOE_2_FP4),
    )
    inputs = (("flydsl_mxmoe_g1", "", "fp4", MXMOE_1), ("flydsl_mxmoe_g1_bf16_input", "_f16in", "bf16", MXMOE_1_BF16))
    return (
        *(
            FlydslFamily(
                _family(id, f"{first}{flag}{_MXMOE_OPTIONS}", "1", (activations, "fp4"), "fp4_mx"),
                BUILD_MXMOE_1,
                arguments,
                pointers=False,
                sorted_output=True,
                least_model_dim=1024,
                block_columns=128,
                scale_tile_rows=32,
            )
            for id, flag, activations, arguments in inputs
        ),
        FlydslFamily(
            _family("flydsl_mxmoe_g2", f"{second}_atomic{_MXMOE_OPTIONS}", "2", ("fp4", "fp4"), "bf16"),
            BUILD_MXMOE_2,
            MXMOE_2,
            pointers=False,
            sorted_input=True,
        ),
        *(
            FlydslFamily(
                _family(f"flydsl_mxmoe_g2_{id}", rf"{second}{flag}(?:_xcd\d+)?", "2", ("fp4", "fp4"), output),
                builder,
                MXMOE_2,
                pointers=False,
                sorted_input=True,
                sorted_output=True,
                plain_scales=True,
            )
            for id, flag, output, builder in by_row
        ),
    )


FLYDSL_FAMILIES: tuple[FlydslFamily, ...] = (
    *(family for formats in (("fp4", "fp4"), ("fp8", "fp4"), ("fp8", "fp8")) for family in _stage_1(*formats)),
    *(family for formats in (("fp4", "fp4"), ("fp8", "fp4"), ("fp8", "fp8")) for family in _stage_2(*formats)),
    *(_layout_2(*formats) for formats in (("fp4", "fp4"), ("fp8", "fp4"), ("fp8", "fp8"))),
    *_ports("fp4", "mx"),
    *_ports("int4", "group"),
    *_mxmoe(),
)


@dataclass(frozen=True, slots=True)
class FlydslName:
    """Family of a kernel and what its name states.

    Attributes:
        tile_m: rows of a block; those of a tile of sorted rows may be more.
        k_step: K must be a multiple of it.
        reduces: whether a kernel of stage 2 writes a row per slot, which AITER adds up afterwards.
    """

    called: FlydslFamily
    kind: KernelKind
    tile_m: int
    k_step: int
    reduces: bool


def flydsl_name(kernel: str) -> FlydslName:
    """Return what the name of a FlyDSL kernel says.

    Raises:
        DeriveError: no family here has that name.
    """
    for called in FLYDSL_FAMILIES:
        found = re.fullmatch(called.family.file_name, kernel)
        if found:
            parts = {name: int(value) for name, value in found.groupdict().items() if value and value.isdigit()}
            persistent = bool(found.groupdict().get("persist"))
            kind = KernelKind(called.family, parts.get("sorted_rows", parts["tile_m"]), parts["tile_n"], persistent)
            step = parts["tile_k"] * parts.get("k_batch", 1) * parts.get("k_parts", 1)
            return FlydslName(called, kind, parts["tile_m"], step, found.groupdict().get("mode") == "reduce")
    known = ", ".join(called.family.id for called in FLYDSL_FAMILIES)
    raise UnknownKernelError(f"{kernel}: how this kernel is called is not known here; known families: {known}")
