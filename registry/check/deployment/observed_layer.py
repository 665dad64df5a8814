"""Observed layer: an observation, completed from the book."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import LayoutError, QueryError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import BITS, GROUP, Role
from preshuffle.registry.entries import LAYOUT_FACTS, MODEL_NAME, ArchEntry, Facts, ModelEntry, Scalar, moe_shape
from preshuffle.registry.kernels import dispatch_book, is_newest
from preshuffle.registry.layer import (
    Slots,
    behaves_as,
    counted_fields,
    expert_slots,
    read_switches,
    shared_experts_of,
    value_of,
)
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import find_model
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Applied, Observation, TensorObservation
from preshuffle.registry.values.query import Query

WEIGHTS: tuple[Role, ...] = ("w13_weight", "w2_weight")
SCALES: dict[Role, Role] = {"w13_weight_scale": "w13_weight", "w2_weight_scale": "w2_weight"}
_DIVISIBLE_SHAPES = {"byte": (2, 1024, 1024), "group": (2, 1024, 64), "any": (2, 1024, 1024)}
"""Shapes that every layout divides, for tensors of unknown shape."""


@dataclass(frozen=True, slots=True)
class ObservedTensor:
    """One tensor of a deployment, as reported.

    Attributes:
        observation: what was reported of it.
        layout: the book's layout; None where it is not known, or the book has none of that name.
    """

    role: Role
    observation: TensorObservation
    layout: Layout | None

    @property
    def plain(self) -> bool:
        """Whether the bytes are known to be plain."""
        return self.layout is not None and self.layout.id == "plain"

    @property
    def laid_out(self) -> bool:
        """Whether the bytes are known to be laid out."""
        return self.layout is not None and self.layout.id != "plain"

    @property
    def tiled(self) -> bool:
        """Whether the bytes are known to lie in tiles."""
        return self.layout is not None and self.layout.unit != "any"

    def padded(self, axis: int) -> int | None:
        """Return the padding along an axis of ``[experts, rows, K]``.

        Physical minus logical size; None where it is not known.
        """
        logical, physical = self.observation.logical_shape, self.observation.physical_shape
        if logical is None or physical is None or len(logical) != len(physical) or len(logical) <= axis:
            return None
        return physical[axis] - logical[axis]


@dataclass(frozen=True, slots=True)
class ObservedLayer:
    """One observed MoE layer, completed from the book.

    Attributes:
        memo: stores what many deployments share.
        query: with the facts of the model's entry filled in.
        model_name: the model as the observation names it.
        stated: the query's fields that the observation states itself.
        aiter: AITER's version as it is stated; the query has the one that the build behaves as by what was probed.
        sizes: physical hidden size and intermediate size of one rank, as AITER takes them; None where not known.
        experts: how many one rank holds; None where it is not known.
        facts: everything known, by the flat names that contracts and deny-lists use.
        slots: what the engine makes of shared experts; None where no engine is named or its switches have no meaning.
        masked_column: whether the engine appends a column to ``topk_ids`` where it passes a mask.
    """

    book: Book
    memo: Memo
    query: Query
    model_name: str
    stated: frozenset[str]
    aiter: str | None
    applied: Applied
    tensors: Mapping[Role, ObservedTensor]
    arch: ArchEntry | None
    model: ModelEntry | None
    sizes: tuple[int | None, int | None]
    experts: int | None
    facts: Facts
    slots: Slots | None
    masked_column: bool

    @property
    def halves(self) -> int:
        """Blocks of rows in w13."""
        return 2 if self.query.gated else 1

    @property
    def group(self) -> int:
        """Values of K that share a scale; 1 where none do."""
        return GROUP.get(self.query.quant_type or "", 1)

    @property
    def laid_out(self) -> bool:
        """Whether some weight lies in tiles, or is tagged so.

        Merely alternating rows do not count: Triton's kernels read them, too.
        """
        weights = [self.tensors[role] for role in WEIGHTS if role in self.tensors]
        return any(tensor.tiled or tensor.observation.is_shuffled for tensor in weights)

    def faults(self, code: str) -> tuple[Finding, ...]:
        """Return the faults of a code in what the engine makes of shared experts."""
        return tuple(finding for finding in self.slots.findings if finding.code == code) if self.slots else ()

    def hidden(self) -> int | None:
        """Return the unpadded hidden size, as declared."""
        return _live(self.tensors, "w13_weight", 2) or _live(self.tensors, "w2_weight", 1) or self.query.hidden_size

    def intermediate(self) -> int | None:
        """Return the unpadded intermediate size of one rank, as declared."""
        rows = _live(self.tensors, "w13_weight", 1)
        return _live(self.tensors, "w2_weight", 2) or (rows // self.halves if rows else None)


def _live(tensors: Mapping[Role, ObservedTensor], role: Role, axis: int) -> int | None:
    tensor = tensors.get(role)
    shape = tensor.observation.logical_shape if tensor else None
    return shape[axis] if shape is not None and len(shape) == 3 else None


def _physical(tensors: Mapping[Role, ObservedTensor], role: Role, axis: int) -> int | None:
    tensor = tensors.get(role)
    shape = tensor.observation.physical_shape if tensor else None
    return shape[axis] if shape is not None and len(shape) == 3 else None


def observe_layer(observation: Observation, book: Book, memo: Memo) -> ObservedLayer:
    """Complete an observation from its model's entry; assume nothing else."""
    stated = frozenset(observation.query.model_fields_set)
    arch, query = book.arch_names.complete(observation.query)
    applied = observation.applied
    model = find_model(query.model, book)
    update: dict[str, Any] = {}
    if model is not None:
        update = {name: value for name, value in model.given().items() if getattr(query, name) is None}
        update["model"] = model.id
    observed = _dtype_of(applied)
    if query.weight_dtype is None and observed is not None:  # what was loaded says more than the model's entry
        update["weight_dtype"] = observed
    if query.aiter_features:
        update["aiter"] = behaves_as(book, query.aiter, query.aiter_features)
    full = query.model_copy(update=update) if update else query
    full, slots, masked_column = _fused(full, query, model, applied, book, memo)
    tensors = {
        role: ObservedTensor(role, tensor, _layout(book, tensor.layout)) for role, tensor in applied.tensors.items()
    }
    facts: dict[str, Scalar] = {}
    sizes, experts = _sizes(tensors, 2 if full.gated else 1), _experts(tensors, full, applied)
    layer = ObservedLayer(
        book,
        memo,
        full,
        query.model,
        stated,
        query.aiter,
        applied,
        tensors,
        arch,
        model,
        sizes,
        experts,
        facts,
        slots,
        masked_column,
    )
    _fill(facts, layer)
    return layer


def _fused(
    full: Query, query: Query, model: ModelEntry | None, applied: Applied, book: Book, memo: Memo
) -> tuple[Query, Slots | None, bool]:
    """Count fused shared experts in, as ``resolve`` does, and say whether a masked column is appended.

    Returns:
        the query with the experts that the engine runs, its slots, and whether ``topk_ids`` has a column more.
    """
    masked = applied.expert_map == "mask" or query.ep > 1
    if query.engine is None:
        return full, None, masked
    try:
        switches = read_switches(full, book, memo)
    except QueryError:  # a switch has a value that it cannot have: found by the rules on switches
        return full, None, masked
    given = query.num_experts is not None or query.top_k is not None
    stated = frozenset(query.model_fields_set & {"tp", "ep", "dp"})
    slots = expert_slots(full, shared_experts_of(model), switches, book, memo, given=given, observed=stated)
    if counted := counted_fields(full, slots):
        full = full.altered(**counted)
    return full, slots, masked and slots.masked_column is not False


def _layout(book: Book, name: str | None) -> Layout | None:
    return book.layout(name) if name is not None and name in book.known_layouts else None


def _dtype_of(applied: Applied) -> str | None:
    weights = (applied.tensors.get(role) for role in WEIGHTS)
    dtype = next((weight.dtype for weight in weights if weight is not None and weight.dtype is not None), None)
    if dtype is None or dtype == "uint8":
        return None
    return "fp8" if dtype.startswith("fp8") else dtype if dtype in ("bf16", "fp16", "fp4x2", "i4x2", "i8") else None


_QUERY_FACTS = (
    "model", "arch", "cu_num", "weight_dtype", "quant_type", "activation", "activation_dtype", "gate_up_order",
    "producer", "hidden_size", "intermediate_size", "num_experts", "top_k", "gated", "bias",
    "router_weight_on_input", "aiter", "rocm",
    "deployment",
)  # fmt: skip
_APPLIED_FACTS = (
    "function", "gate_mode", "doweight_stage1", "router_weight", "hidden_pad",
    "intermediate_pad", "bias_passed", "expert_map", "swizzle_mx_scale", "source_order",
    "fallback_backend", "graphs", "eplb", "lora", "swiglu_limit",
)  # fmt: skip


def _fill(facts: dict[str, Scalar], layer: ObservedLayer) -> None:
    query, applied = layer.query, layer.applied
    facts.update({name: getattr(query, name) for name in _QUERY_FACTS})
    facts.update({name: getattr(applied, name) for name in _APPLIED_FACTS})
    facts.update({name: getattr(query, name) for name in ("tp", "ep", "dp", "all_to_all") if name in layer.stated})
    facts["aiter"] = _release(query.aiter)
    if query.model != layer.model_name:
        facts[MODEL_NAME] = layer.model_name
    facts["engine"] = query.engine.name if query.engine else None
    facts["engine_version"] = query.engine.version if query.engine else None
    facts["arch_mx"] = any(name.startswith("mxfp4") for name in layer.arch.features) if layer.arch else None
    facts["model_limit"] = layer.model.swiglu_limit is not None if layer.model else None
    for name, role in LAYOUT_FACTS:
        tensor = layer.tensors.get(role)
        facts[name] = tensor.layout.id if tensor and tensor.layout else None
    for name, role in (("w13_tag", WEIGHTS[0]), ("w2_tag", WEIGHTS[1])):
        facts[name] = layer.tensors[role].observation.is_shuffled if role in layer.tensors else None
    facts["model_dim"], width = layer.sizes
    facts["inter_dim"] = width
    facts["experts"] = layer.experts
    facts["moe_shape"] = moe_shape(layer.experts, layer.sizes[0], query.top_k)
    facts["mask_ones"] = max(applied.mask_ones) if applied.mask_ones else None
    facts["mask_size"] = applied.mask_size
    facts["w2_groups"] = -(-width // layer.group) if width and layer.group > 1 else None
    for name, value in query.env.items():
        flag = layer.book.flags.get(name)
        facts[f"env.{name}"] = value_of(flag, value) if flag else value


def _release(aiter: str | None) -> str | None:
    """Return the version that conditions are tested on.

    A build of the newest commit counts as the newest release.
    """
    return dispatch_book().newest if aiter is not None and is_newest(aiter) else aiter


def _sizes(tensors: Mapping[Role, ObservedTensor], halves: int) -> tuple[int | None, int | None]:
    """Return model_dim and inter_dim of one rank.

    w2's rows and K; else w13's K and its rows by half.
    """
    rows = _physical(tensors, "w13_weight", 1)
    return (
        _physical(tensors, "w2_weight", 1) or _physical(tensors, "w13_weight", 2),
        _physical(tensors, "w2_weight", 2) or (rows // halves if rows else None),
    )


def _experts(tensors: Mapping[Role, ObservedTensor], query: Query, applied: Applied) -> int | None:
    for role in WEIGHTS:
        tensor = tensors.get(role)
        if tensor is not None:
            for shape in (tensor.observation.physical_shape, tensor.observation.logical_shape):
                if shape is not None and len(shape) == 3:
                    return shape[0]
    if applied.local_experts:
        return applied.local_experts[0]
    total = query.num_experts
    return total // query.ep if total and not total % query.ep else None


def counted_shape(layer: ObservedLayer, tensor: ObservedTensor, layout: Layout) -> tuple[int, int, int] | None:
    """Return a tensor's physical shape, ``(experts, rows, K)``, in a layout's units."""
    shape = tensor.observation.physical_shape
    if shape is None or len(shape) != 3 or not all(shape):
        return None
    count, rows, k = shape
    if layout.unit != "byte":
        return count, rows, k
    bits = BITS.get((layer.query.weight_dtype if tensor.role in WEIGHTS else None) or tensor.observation.dtype or "")
    return (count, rows, k * bits // 8) if bits else None


def _same(first: Layout, second: Layout, shape: tuple[int, int, int]) -> bool:
    try:
        return first.bind(*shape).permutation == second.bind(*shape).permutation
    except LayoutError:
        return False


def same_bytes(layer: ObservedLayer, tensor: ObservedTensor, other: Layout) -> bool:
    """Return whether a tensor's bytes are those of another layout.

    The permutations are compared, not the names.

    Where the shape is unknown or does not divide, the layouts are compared on a shape that both divide.
    """
    if tensor.layout is None or tensor.layout.id == other.id:
        return True
    layout = tensor.layout
    shape = counted_shape(layer, tensor, layout if layout.unit != "any" else other)
    return layer.memo.get("same bytes", (layout, other, shape), lambda: _same_on(layout, other, shape))


def _same_on(first: Layout, second: Layout, shape: tuple[int, int, int] | None) -> bool:
    if shape is not None and _same(first, second, shape):
        return True
    return _same(first, second, _DIVISIBLE_SHAPES[second.unit if second.unit != "any" else first.unit])


def either_of(values: Iterable[str]) -> str:
    """Return ``a or b or c``."""
    return " or ".join(dict.fromkeys(values))
