"""One MoE layer on one rank: its facts and their origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import FieldProblem, NoRecipeError, QueryError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.base.words import BITS, GROUP, Role
from preshuffle.registry.entries import (
    LAYOUT_FACTS,
    MODEL_NAME,
    ArchEntry,
    Facts,
    ModelEntry,
    Scalar,
    facts_of,
    moe_shape,
)
from preshuffle.registry.kernels import dispatch_book, is_newest
from preshuffle.registry.layer.expert_slots import Slots, expert_slots, shared_experts_of
from preshuffle.registry.layer.sizes import LayerSizes, sizes_of
from preshuffle.registry.layer.switches import Switches, value_of
from preshuffle.registry.layer.tensors import WEIGHTS, ObservedTensor, same_bytes, weight_dtype_of
from preshuffle.registry.loading import Book
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Applied
from preshuffle.registry.values.query import Query

Source = Literal["given", "model", "engine", "aiter", "observed", "default", "unknown"]
"""Where a fact comes from."""
NOTHING = Applied()
"""What is known of a layer that nobody observed."""


@dataclass(frozen=True, eq=False)
class MoELayer:
    """One MoE layer on one rank as it really runs.

    It is made by ``layer_of``, from a query or from an observation. What was observed wins over what follows from the
    query; what is in neither comes from the model's entry, the engine's habits and AITER's version.

    Attributes:
        memo: stores what many layers share.
        requested: the query as it was stated, with the GPU's gfx name.
        query: with the model's facts, fused shared experts and the AITER that a build behaves as.
        arch: None where no entry knows the GPU.
        model: its entry, where there is one.
        switches: the effective environment switches.
        slots: what the engine makes of shared experts, and the columns of ``topk_ids``.
        masked_column: whether ``topk_ids`` has a column more than top-k.
        applied: what was done to the tensors and passed to the kernel; empty for a query alone.
        tensors: the tensors that were reported.
        problems: fields of the query that cannot be what they say.
        supposed: whether no AITER was stated and this one is supposed.
    """

    book: Book
    memo: Memo
    requested: Query
    query: Query
    arch: ArchEntry | None
    model: ModelEntry | None
    switches: Switches
    slots: Slots
    masked_column: bool
    applied: Applied = NOTHING
    tensors: Mapping[Role, ObservedTensor] = field(default_factory=dict)
    problems: tuple[FieldProblem, ...] = ()
    supposed: bool = False

    @property
    def stated(self) -> set[str]:
        """Fields that the query states itself."""
        return self.requested.model_fields_set

    @cached_property
    def rule_facts(self) -> Mapping[str, Scalar]:
        """Facts that rules and recipes' requirements read, by flat field name.

        They ask for the AITER build itself; kernels for the release that it behaves as.
        """
        return facts_of({**self.query.__dict__, "aiter": self.requested.aiter}, self.switches.facts)

    @cached_property
    def facts(self) -> Facts:
        """Facts that contracts and deny-lists read; absent where unknown."""
        return _entry_facts(self)

    def source_of(self, name: str) -> Source:
        """Return where a field of ``query`` comes from."""
        value, given = getattr(self.query, name), getattr(self.requested, name)
        if value is None:
            return "unknown"
        if name in self.stated and given is not None:
            return "given" if given == value else "aiter" if name == "aiter" else "observed"
        if name == "weight_dtype" and weight_dtype_of(self.applied) is not None:
            return "observed"
        if name in ("num_experts", "top_k") and self.slots.fused:
            return "engine"
        return "model" if self.model is not None and name in self.model.given() else "default"

    def checked(self) -> MoELayer:
        """Return the layer itself, if its query can be answered.

        Raises:
            NoRecipeError: the arch is unknown.
            QueryError: a switch has a value that it cannot have, or a probed feature is none of the book's.
        """
        if self.arch is None:
            raise NoRecipeError(self.book.arch_names.unknown(self.requested.arch))
        if self.problems:
            raise QueryError(list(self.problems))
        return self

    @property
    def known_arch(self) -> ArchEntry:
        """The GPU's entry.

        Raises:
            NoRecipeError: the arch is unknown.
        """
        if self.arch is None:
            raise NoRecipeError(self.book.arch_names.unknown(self.requested.arch))
        return self.arch

    @cached_property
    def sizes(self) -> LayerSizes:
        """Sizes of the unsharded layer.

        Raises:
            NoRecipeError: names the fields that neither the query nor a model's entry gives.
            QueryError: a token would need more experts than there are.
        """
        return sizes_of(self.query, self.model is not None)

    @property
    def supposes_newest(self) -> bool:
        """Whether the newest known AITER, or a later one, is supposed."""
        return self.supposed and version_key(self.query.aiter or "") >= version_key(dispatch_book().newest)

    @property
    def compute_units(self) -> tuple[int, ...]:
        """Numbers of compute units that the GPU may have.

        None for an unknown GPU.
        """
        if self.query.cu_num is not None:
            return (self.query.cu_num,)
        return tuple(dict.fromkeys(self.arch.cu_num.values())) if self.arch else ()

    @property
    def halves(self) -> int:
        """Blocks of rows in w13."""
        return 2 if self.query.gated else 1

    @property
    def group(self) -> int:
        """Values of K that share a scale; 1 where none do."""
        return GROUP.get(self.query.quant_type or "", 1)

    @property
    def passes_mask(self) -> bool:
        """Whether an expert mask reaches AITER."""
        return self.applied.expert_map == "mask" or self.query.ep > 1

    @property
    def doweight_stage1(self) -> bool | None:
        """Whether stage 1 multiplies the router's weights; None where unknown."""
        applied = self.applied
        if applied.doweight_stage1 is None and applied.function is not None:
            function = self.book.entries["functions"].get(applied.function)
            return True if function is not None and function.doweight_stage1 else None
        return applied.doweight_stage1

    @property
    def laid_out(self) -> bool:
        """Whether some weight lies in tiles, or is tagged so.

        Merely alternating rows do not count: Triton's kernels read them, too.
        """
        weights = [self.tensors[role] for role in WEIGHTS if role in self.tensors]
        return any(tensor.tiled or tensor.observation.is_shuffled for tensor in weights)

    @cached_property
    def dims(self) -> tuple[int | None, int | None]:
        """Observed ``(model_dim, inter_dim)`` of one rank, with padding.

        w2's rows and K; else w13's K and its rows by half.
        """
        w13, w2 = (self.tensors.get(role) for role in WEIGHTS)
        rows = w13.physical(1) if w13 else None
        return (
            (w2.physical(1) if w2 else None) or (w13.physical(2) if w13 else None),
            (w2.physical(2) if w2 else None) or (rows // self.halves if rows else None),
        )

    @cached_property
    def local_experts(self) -> int | None:
        """Experts of one rank: observed, else the rank's share; None where unknown."""
        for role in WEIGHTS:
            tensor = self.tensors.get(role)
            count = (tensor.physical(0) or tensor.logical(0)) if tensor else None
            if count is not None:
                return count
        if self.applied.local_experts:
            return self.applied.local_experts[0]
        total = self.query.num_experts
        return total // self.query.ep if total and not total % self.query.ep else None

    def faults(self, code: str) -> tuple[Finding, ...]:
        """Return faults of a code in the handling of shared experts."""
        return tuple(finding for finding in self.slots.findings if finding.code == code)

    def hidden(self) -> int | None:
        """Return the unpadded hidden size, as declared."""
        return self._logical("w13_weight", 2) or self._logical("w2_weight", 1) or self.query.hidden_size

    def intermediate(self) -> int | None:
        """Return the unpadded intermediate size of one rank, as declared."""
        rows = self._logical("w13_weight", 1)
        return self._logical("w2_weight", 2) or (rows // self.halves if rows else None)

    def _logical(self, role: Role, axis: int) -> int | None:
        tensor = self.tensors.get(role)
        return tensor.logical(axis) if tensor else None

    def bits_of(self, tensor: ObservedTensor) -> int | None:
        """Return the bits of one value of a tensor; None where unknown."""
        weight = self.query.weight_dtype if tensor.role in WEIGHTS else None
        return BITS.get(weight or tensor.observation.dtype or "")

    def counted_shape(self, tensor: ObservedTensor, layout: Layout) -> tuple[int, int, int] | None:
        """Return a tensor's physical shape, ``(experts, rows, K)``, in a layout's units."""
        shape = tensor.observation.physical_shape
        if shape is None or len(shape) != 3 or not all(shape):
            return None
        count, rows, k = shape
        bits = self.bits_of(tensor)
        if layout.unit != "byte":
            return count, rows, k
        return (count, rows, k * bits // 8) if bits else None

    def reads_same(self, tensor: ObservedTensor, layout: str) -> bool:
        """Return whether a tensor's bytes are those of a layout.

        True where its own is unknown.
        """
        if tensor.layout is None:
            return True
        shape = tensor.observation.physical_shape
        shape = shape if shape is not None and len(shape) == 3 and all(shape) else None
        key = (tensor.layout.id, layout, shape, self.bits_of(tensor))
        return self.memo.get("same bytes", key, lambda: same_bytes(self.book, *key))


_QUERY_FACTS = (
    "model", "arch", "cu_num", "weight_dtype", "quant_type", "activation", "activation_dtype", "gate_up_order",
    "producer", "hidden_size", "intermediate_size", "num_experts", "top_k", "gated", "bias",
    "router_weight_on_input", "activation_scales", "rocm", "deployment",
)  # fmt: skip
_APPLIED_FACTS = (
    "function", "gate_mode", "doweight_stage1", "router_weight", "hidden_pad", "intermediate_pad", "bias_passed",
    "expert_map", "swizzle_mx_scale", "source_order", "fallback_backend", "graphs", "eplb", "lora", "swiglu_limit",
    "mask_size",
)  # fmt: skip
_PARALLEL_FACTS = ("tp", "ep", "dp", "all_to_all")
_TAG_FACTS = (("w13_tag", WEIGHTS[0]), ("w2_tag", WEIGHTS[1]))


def _shared_experts(layer: MoELayer) -> Scalar:
    """Return what the engine makes of shared experts, whatever number of experts the query states."""
    shared = shared_experts_of(layer.model)
    if shared is not None and not shared.count:
        return "none"
    return expert_slots(layer.query, shared, layer.switches, layer.book, layer.memo, given=False).outcome


def _entry_facts(layer: MoELayer) -> dict[str, Scalar]:
    """Return what contracts and deny-lists may ask for, None where it is unknown."""
    query, applied, engine, tensors = layer.query, layer.applied, layer.query.engine, layer.tensors
    asked, done, stated = query.__dict__, applied.__dict__, layer.stated
    hidden, inter = layer.dims
    newest = query.aiter is not None and is_newest(query.aiter)
    facts: dict[str, Scalar] = {
        **{name: asked[name] for name in _QUERY_FACTS},
        **{name: done[name] for name in _APPLIED_FACTS},
        **{name: asked[name] for name in _PARALLEL_FACTS if name in stated},
        "aiter": dispatch_book().newest if newest else query.aiter,  # a build of the newest commit counts as it
        "engine": engine.name if engine else None,
        "engine_version": engine.version if engine else None,
        "arch_mx": any(name.startswith("mxfp4") for name in layer.arch.features) if layer.arch else None,
        "shared_experts": _shared_experts(layer) if applied.eplb else None,
        "model_limit": layer.model.swiglu_limit is not None if layer.model else None,
        "model_dim": hidden,
        "inter_dim": inter,
        "experts": layer.local_experts,
        "moe_shape": moe_shape(layer.local_experts, hidden, query.top_k),
        "mask_ones": max(applied.mask_ones) if applied.mask_ones else None,
        "activation_scales": query.activation_scales or ("static" if "w13_input_scale" in tensors else None),
        "input_scales": "w13_input_scale" in tensors or None,
        "w2_groups": -(-inter // layer.group) if inter and layer.group > 1 else None,
    }
    if "tp" in stated and query.intermediate_size and query.intermediate_size % query.tp == 0:
        facts["rank_inter"] = query.intermediate_size // query.tp
    if query.model != layer.requested.model:
        facts[MODEL_NAME] = layer.requested.model
    for name, role in LAYOUT_FACTS:
        tensor = tensors.get(role)
        facts[name] = tensor.layout.id if tensor and tensor.layout else None
    for name, role in _TAG_FACTS:
        facts[name] = tensors[role].observation.is_shuffled if role in tensors else None
    for name, value in query.env.items():
        flag = layer.book.flags.get(name)
        facts[f"env.{name}"] = value_of(flag, value) if flag else value
    return facts
