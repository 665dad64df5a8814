"""Random layers: tensors of codes and scales, and their result in float64."""

from dataclasses import dataclass, field

import numpy as np

from preshuffle.layouts.derive.kernels.activations import ALONE, combine
from preshuffle.layouts.derive.kernels.layer_run import BLOCK, MX_GROUP, LayerRun, LayerSizes
from preshuffle.layouts.derive.kernels.routing import TileRouting, sort_into_tiles
from preshuffle.layouts.derive.kernels.weight_formats import Codes, Floats, WeightFormat
from preshuffle.layouts.emulator import E2M1, float_to_code

SEED = 15
E8M0_BIAS = 127
BIAS_SIZE = 0.05


@dataclass(frozen=True, slots=True)
class RandomLayer:
    """Weights, activations and scales of a layer.

    Attributes:
        codes: ``x``, ``w13_weight`` and ``w2_weight`` as codes.
        scales: by the same names; float32, or e8m0 bytes as float64 exponents are not kept.
        bias: of w13, ``[experts, rows]``, gate rows first; zeros where the kernel adds none.
        smooth: factors of the columns between the stages, ``[experts, inter_dim]``; ones where the kernel has none.
    """

    codes: dict[str, Codes]
    scales: dict[str, Floats] = field(default_factory=dict)
    bias: Floats = field(default_factory=lambda: np.zeros((1, 1)))
    smooth: Floats = field(default_factory=lambda: np.ones((1, 1)))


def random_routing(sizes: LayerSizes, tile_rows: int) -> TileRouting:
    """Return a routing with a partly filled tile and two slots."""
    generator = np.random.default_rng(SEED)
    tokens = max(tile_rows - 9, 7)
    chosen = [list(range(tokens)), list(range(2, 2 + min(20, tokens - 2)))]
    chosen += [[] for _ in range(sizes.experts - 2)]
    return sort_into_tiles(chosen, tokens, tile_rows, generator.uniform(0.3, 1, tokens).astype(np.float32))


def random_layer(run: LayerRun) -> RandomLayer:
    """Return random tensors for a kernel."""
    generator = np.random.default_rng(SEED + 1)
    shapes: dict[str, tuple[int, ...]] = {"x": run.x_shape}
    shapes |= {role: run.sizes.shape(role) for role in ("w13_weight", "w2_weight")}
    codes = {name: _format_of(run, name).random(generator, shape, run.arch) for name, shape in shapes.items()}
    _clear_pads(run, codes)
    scales = {name: _random_scale(run, generator, shape) for name, shape in shapes.items()}
    experts, rows, _ = run.sizes.shape("w13_weight")
    bias = (generator.standard_normal((experts, rows)) * BIAS_SIZE).astype(np.float32).astype(np.float64)
    smooth = np.ones((experts, run.sizes.inter_dim))
    if run.kind.family.smooth:
        smooth = generator.uniform(0.5, 1.5, smooth.shape).astype(np.float32).astype(np.float64)
    return RandomLayer(codes, scales, bias if run.adds_bias else np.zeros((experts, rows)), smooth)


def _clear_pads(run: LayerRun, codes: dict[str, Codes]) -> None:
    """Set what is padding to zeros: of w13 the last rows of gate and of up, and the last columns."""
    sizes = run.sizes
    hidden, columns = sizes.model_dim - sizes.hidden_pad, sizes.inter_dim - sizes.intermediate_pad
    w13, w2, x = codes["w13_weight"], codes["w2_weight"], codes["x"]
    w13[:, :, hidden:] = 0
    w13.reshape(sizes.experts, -1, sizes.inter_dim, sizes.model_dim)[:, :, columns:] = 0
    w2[:, hidden:] = 0
    w2[:, :, columns:] = 0
    x[:, columns if run.kind.family.stage == "2" else hidden :] = 0


def _format_of(run: LayerRun, name: str) -> WeightFormat:
    return run.x_format if name == "x" else run.format


def _random_scale(run: LayerRun, generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return scales: per row, per block or per group; for activations one per token instead of a block of rows."""
    kind = run.kind.family.scale
    *rows, k = shape
    if kind == "none" or (len(shape) == 2 and not run.kind.family.scaled_activations):
        return np.ones((*rows, 1))
    if kind in ("mx", "group"):
        return np.exp2(generator.integers(-8, -3, (*rows, k // MX_GROUP)).astype(np.float64))
    if kind == "row":
        size = (*rows, 1)
    else:
        size = (*rows, k // BLOCK) if len(shape) == 2 else (rows[0], rows[1] // BLOCK, k // BLOCK)
    factor = run.format.unit_scale * (0.05 if len(shape) == 3 else 1.0)
    return (generator.uniform(0.5, 1.5, size) * factor).astype(np.float32).astype(np.float64)


def values_of(run: LayerRun, layer: RandomLayer, name: str) -> Floats:
    """Return a tensor in float64, its scales applied."""
    codes, scales = layer.codes[name], layer.scales[name]
    values = _format_of(run, name).decode(codes, run.arch)
    for axis in range(1 if codes.ndim == 2 else 2, codes.ndim):
        scales = np.repeat(scales, codes.shape[axis] // scales.shape[axis], axis)
    if codes.ndim == 3:
        scales = np.repeat(scales, codes.shape[1] // scales.shape[1], 1)
    scaled: Floats = values * scales
    return scaled


def expected(run: LayerRun, layer: RandomLayer, activation: str = "silu") -> Floats:
    """Return in float64 what the kernel should compute, its bias included."""
    x, family = values_of(run, layer, "x"), run.kind.family
    if family.stage == "2":
        return _second_stage(run, x, values_of(run, layer, "w2_weight"))
    w13, inter_dim = values_of(run, layer, "w13_weight"), run.sizes.inter_dim
    w2 = values_of(run, layer, "w2_weight") if family.stage == "1-stage" else None
    width = run.sizes.model_dim if w2 is not None else inter_dim
    result = np.zeros((run.routing.tokens, run.routing.top_k, width))
    for token, slot, expert, weight in run.routing.rows:
        both = w13[expert] @ x[token] * (weight if family.routed_weight else 1.0) + layer.bias[expert]
        hidden = combine(both[:inter_dim], both[inter_dim:], activation) if run.sizes.gated else ALONE[activation](both)
        if w2 is None:
            result[token, slot] = hidden
        else:
            passed = between_stages(hidden * layer.smooth[expert], family.between)
            result[token, slot] = (1.0 if family.routed_weight else weight) * (w2[expert] @ passed)
    return result if w2 is None else result.sum(1)


def _second_stage(run: LayerRun, x: Floats, w2: Floats) -> Floats:
    result = np.zeros((run.routing.tokens, run.sizes.model_dim))
    for token, slot, expert, weight in run.routing.rows:
        result[token] += weight * (w2[expert] @ x[token * run.routing.top_k + slot])
    return result


def between_stages(hidden: Floats, between: str) -> Floats:
    """Round activations as MXFP4 kernels do between their stages.

    Groups of 32 to fp4, at a scale of 2^ceil(log2(largest / 6)).
    """
    if between != "fp4":
        return hidden
    groups = hidden.reshape(-1, MX_GROUP)
    largest = np.abs(groups).max(1, keepdims=True)
    scale = np.exp2(np.ceil(np.log2(np.where(largest > 0, largest, 1) / 6)))
    rounded: Floats = (E2M1[float_to_code(groups / scale, E2M1)] * scale).reshape(hidden.shape)
    return rounded
