"""From a recipe and a model's sizes to the shapes, pads and call of one rank."""

from __future__ import annotations

from dataclasses import dataclass

from preshuffle.registry.decision import CallDecision, Pad, TensorDecision
from preshuffle.registry.entries import ArchEntry
from preshuffle.registry.errors import FieldProblem, LayoutError, QueryError
from preshuffle.registry.recipe import PadArgument, Recipe, TensorRecipe
from preshuffle.registry.shard import cut, split_experts
from preshuffle.registry.words import GROUP, Activation, QuantType, Role, RowOrder, TensorDtype


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """One MoE layer of a model, unsharded, and how it is cut."""

    hidden: int
    intermediate: int
    experts: int
    top_k: int
    gated: bool
    bias: bool
    activation: Activation
    quant_type: QuantType
    gate_up_order: RowOrder | None
    tp: int
    ep: int

    @property
    def halves(self) -> int:
        """Blocks of rows in w13: gate and up, or up alone."""
        return 2 if self.gated else 1

    @property
    def group(self) -> int:
        """Values of K that share a scale."""
        return GROUP.get(self.quant_type, 1)

    @property
    def local_experts(self) -> int:
        """Experts of one expert-parallel rank."""
        return split_experts(self.experts, self.ep)[0].size

    def rank_intermediate(self, rank: int) -> int:
        """Intermediate size of one tensor-parallel rank."""
        return cut(self.intermediate, self.tp, self.group)[rank].size


def tensor_decisions(recipe: Recipe, sizes: LayerSizes, arch: ArchEntry) -> dict[Role, TensorDecision]:
    """Return how each tensor of rank 0 must lie. Roles that the model has not (a bias) are left out.

    Raises:
        QueryError: the sizes cannot be cut between the ranks.
    """
    if sizes.hidden % sizes.group:
        raise QueryError([FieldProblem("hidden_size", f"{sizes.hidden} is not whole groups of {sizes.group}")])
    first, last = sizes.rank_intermediate(0), sizes.rank_intermediate(-1)
    decisions: dict[Role, TensorDecision] = {}
    for role, tensor in recipe.tensors.items():
        if role.endswith("_bias") and not sizes.bias:
            continue
        full = _shape(role, tensor, sizes, first)
        short = _shape(role, tensor, sizes, last)
        w13 = role.startswith("w13")
        order = tensor.order if w13 and sizes.gated else None
        decisions[role] = TensorDecision(
            layout=tensor.layout,
            logical_shape=full.logical,
            physical_shape=full.physical,
            pad=full.pad,
            fill=tensor.fill,
            dtype=_dtype(tensor.dtype, arch),
            short_shape=short.logical if short.logical != full.logical else None,
            source_order=sizes.gate_up_order if order else None,
            order=order,
            rank0_only=tensor.rank0_only,
            is_shuffled=tensor.is_shuffled,
        )
    return decisions


def call_decision(
    recipe: Recipe, sizes: LayerSizes, tensors: dict[Role, TensorDecision], swiglu: tuple[float | None, float | None]
) -> CallDecision:
    """Return the arguments of the call that go with the tensors; ``swiglu`` is (limit, alpha)."""
    w13, w2 = tensors["w13_weight"].pad, tensors["w2_weight"].pad
    return CallDecision(
        gate_mode=recipe.call.gate_mode,
        quant_type=recipe.call.quant_type,
        activation=sizes.activation,
        hidden_pad=_argument(w13.k, recipe.call.hidden_pad, sizes.tp),
        intermediate_pad=_argument(w2.k, recipe.call.intermediate_pad, sizes.tp),
        bias=sizes.bias,
        swiglu_limit=swiglu[0],
        swiglu_alpha=swiglu[1],
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    logical: tuple[int, ...]
    physical: tuple[int, ...]
    pad: Pad


def _shape(role: Role, tensor: TensorRecipe, sizes: LayerSizes, intermediate: int) -> _Shape:
    halves = sizes.halves if role.startswith("w13") else 1
    rows, k = (intermediate, sizes.hidden) if role.startswith("w13") else (sizes.hidden, intermediate)
    experts = sizes.local_experts
    padded_rows = _up(rows, tensor.pad.rows)
    if role.endswith("_bias"):
        shape, padded = (experts, halves * rows), (experts, halves * padded_rows)
        return _Shape(shape, padded, Pad(rows=padded_rows - rows))
    if role.endswith("_scale"):
        if role.endswith("_input_scale"):
            return _Shape((experts,), (experts,), Pad())
        k = -(-k // sizes.group)
    padded_k = _up(k, tensor.pad.k)
    return _Shape(
        (experts, halves * rows, k),
        (experts, halves * padded_rows, padded_k),
        Pad(rows=padded_rows - rows, k=padded_k - k),
    )


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _argument(pad: int, argument: PadArgument, tp: int) -> int:
    rounded = pad // argument.round_down * argument.round_down
    return rounded * (argument.times_at_tp1 if tp == 1 else 1)


def _dtype(dtype: TensorDtype, arch: ArchEntry) -> TensorDtype:
    if dtype != "fp8":
        return dtype
    if arch.fp8 is None:
        raise LayoutError(f"{arch.id} has no fp8")
    return arch.fp8
