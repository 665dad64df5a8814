"""The scene: an observation with what follows from it and from the book, worked out once for all rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import BITS, GROUP, Role
from preshuffle.registry.entries import MODEL_NAME, ArchEntry, Facts, ModelEntry, Scalar
from preshuffle.registry.kernels import dispatch_book, is_newest
from preshuffle.registry.layer import behaves_as, value_of
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import find_model
from preshuffle.registry.values.observation import Applied, Observation, TensorObservation
from preshuffle.registry.values.query import Query

WEIGHTS: tuple[Role, ...] = ("w13_weight", "w2_weight")
SCALES: dict[Role, Role] = {"w13_weight_scale": "w13_weight", "w2_weight_scale": "w2_weight"}
_NICE = {"byte": (2, 1024, 1024), "group": (2, 1024, 64), "any": (2, 1024, 1024)}
"""A shape that every layout divides, for tensors whose own shape is not known."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One observed tensor.

    Attributes:
        layout: the book's layout; None where it is not known, or the book has none of that name.
    """

    role: Role
    what: TensorObservation
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
        """Whether the bytes are known to lie in tiles, not just in another order of rows."""
        return self.layout is not None and self.layout.unit != "any"

    def padded(self, axis: int) -> int | None:
        """Return physical minus logical size along an axis of ``[experts, rows, K]``; None where it is not known."""
        logical, physical = self.what.logical_shape, self.what.physical_shape
        if logical is None or physical is None or len(logical) != len(physical) or len(logical) <= axis:
            return None
        return physical[axis] - logical[axis]


@dataclass(frozen=True, slots=True)
class Scene:
    """What the rules look at.

    Attributes:
        query: with the facts of the model's entry filled in.
        named: the model as the observation names it.
        stated: the query's fields that the observation states itself.
        aiter: AITER's version as it is stated; the query has the one that the build behaves as by what was probed.
        sizes: physical hidden size and intermediate size of one rank, as AITER takes them; None where not known.
        experts: how many one rank holds; None where it is not known.
        facts: everything known, by the flat names that contracts and deny-lists use.
    """

    book: Book
    memo: Memo
    query: Query
    named: str
    stated: frozenset[str]
    aiter: str | None
    applied: Applied
    tensors: Mapping[Role, Seen]
    arch: ArchEntry | None
    model: ModelEntry | None
    sizes: tuple[int | None, int | None]
    experts: int | None
    facts: Facts

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
        """Whether some weight is known to lie in tiles, or claims to: rows that only alternate are Triton's too."""
        weights = [self.tensors[role] for role in WEIGHTS if role in self.tensors]
        return any(seen.tiled or seen.what.is_shuffled for seen in weights)

    def hidden(self) -> int | None:
        """Return the live hidden size, as the deployment declares it."""
        return _live(self.tensors, "w13_weight", 2) or _live(self.tensors, "w2_weight", 1) or self.query.hidden_size

    def intermediate(self) -> int | None:
        """Return the live intermediate size of one rank, as the deployment declares it."""
        rows = _live(self.tensors, "w13_weight", 1)
        return _live(self.tensors, "w2_weight", 2) or (rows // self.halves if rows else None)


def _live(tensors: Mapping[Role, Seen], role: Role, axis: int) -> int | None:
    seen = tensors.get(role)
    shape = seen.what.logical_shape if seen else None
    return shape[axis] if shape is not None and len(shape) == 3 else None


def _physical(tensors: Mapping[Role, Seen], role: Role, axis: int) -> int | None:
    seen = tensors.get(role)
    shape = seen.what.physical_shape if seen else None
    return shape[axis] if shape is not None and len(shape) == 3 else None


def open_scene(observation: Observation, book: Book, memo: Memo) -> Scene:
    """Work out what an observation says; nothing is added that neither it nor the model's entry says."""
    query = observation.query
    applied = observation.applied
    stated = frozenset(query.model_fields_set)
    model = find_model(query.model, book)
    update: dict[str, Any] = {}
    if model is not None:
        update = {name: value for name, value in model.given().items() if getattr(query, name) is None}
        update["model"] = model.id
    if query.weight_dtype is None and "weight_dtype" not in update:
        update["weight_dtype"] = _dtype_of(applied)
    if query.aiter_features:
        update["aiter"] = behaves_as(book, query.aiter, query.aiter_features)
    full = query.model_copy(update=update) if update else query
    tensors = {role: Seen(role, what, _layout(book, what.layout)) for role, what in applied.tensors.items()}
    arch = book.archs.get(full.arch)
    facts: dict[str, Scalar] = {}
    sizes, count = _sizes(tensors, 2 if full.gated else 1), _experts(tensors, full)
    scene = Scene(
        book, memo, full, query.model, stated, query.aiter, applied, tensors, arch, model, sizes, count, facts
    )
    _fill(facts, scene)
    return scene


def _layout(book: Book, name: str | None) -> Layout | None:
    return book.layout(name) if name is not None and name in book.known_layouts else None


def _dtype_of(applied: Applied) -> str | None:
    w13 = applied.tensors.get("w13_weight")
    dtype = w13.dtype if w13 else None
    if dtype is None or dtype == "uint8":
        return None
    return "fp8" if dtype.startswith("fp8") else dtype if dtype in ("bf16", "fp16", "fp4x2", "i4x2", "i8") else None


_QUERY_FACTS = (
    "model", "arch", "cu_num", "weight_dtype", "quant_type", "activation", "activation_dtype", "gate_up_order",
    "producer", "hidden_size", "intermediate_size", "num_experts", "top_k", "gated", "bias", "aiter", "rocm",
    "deployment",
)  # fmt: skip
_APPLIED_FACTS = (
    "gate_mode", "hidden_pad", "intermediate_pad", "bias_passed", "expert_map", "swizzle_mx_scale", "source_order",
    "fallback_backend", "graphs", "eplb", "lora", "swiglu_limit",
)  # fmt: skip
_LAYOUT_FACTS: tuple[tuple[str, Role], ...] = (
    ("w13_layout", "w13_weight"),
    ("w2_layout", "w2_weight"),
    ("w13_scale_layout", "w13_weight_scale"),
    ("w2_scale_layout", "w2_weight_scale"),
    ("w13_bias_layout", "w13_bias"),
)


def _fill(facts: dict[str, Scalar], scene: Scene) -> None:
    query, applied = scene.query, scene.applied
    facts.update({name: getattr(query, name) for name in _QUERY_FACTS})
    facts.update({name: getattr(applied, name) for name in _APPLIED_FACTS})
    facts.update({name: getattr(query, name) for name in ("tp", "ep") if name in scene.stated})
    facts["aiter"] = _release(query.aiter)
    if query.model != scene.named:
        facts[MODEL_NAME] = scene.named
    facts["engine"] = query.engine.name if query.engine else None
    facts["engine_version"] = query.engine.version if query.engine else None
    facts["arch_mx"] = any(name.startswith("mxfp4") for name in scene.arch.features) if scene.arch else None
    facts["model_limit"] = scene.model.swiglu_limit is not None if scene.model else None
    for name, role in _LAYOUT_FACTS:
        seen = scene.tensors.get(role)
        facts[name] = seen.layout.id if seen and seen.layout else None
    for name, role in (("w13_tag", WEIGHTS[0]), ("w2_tag", WEIGHTS[1])):
        facts[name] = scene.tensors[role].what.is_shuffled if role in scene.tensors else None
    facts["model_dim"], width = scene.sizes
    facts["inter_dim"] = width
    facts["experts"] = scene.experts
    facts["w2_groups"] = -(-width // scene.group) if width and scene.group > 1 else None
    for name, value in query.env.items():
        flag = scene.book.flags.get(name)
        facts[f"env.{name}"] = value_of(flag, value) if flag else value


def _release(aiter: str | None) -> str | None:
    """Return the version that conditions look at: a development build is known by its commit, not by its number."""
    return dispatch_book().newest if aiter is not None and is_newest(aiter) else aiter


def _sizes(tensors: Mapping[Role, Seen], halves: int) -> tuple[int | None, int | None]:
    """w2's rows and K, where they are known, else w13's K and its rows by half."""
    rows = _physical(tensors, "w13_weight", 1)
    return (
        _physical(tensors, "w2_weight", 1) or _physical(tensors, "w13_weight", 2),
        _physical(tensors, "w2_weight", 2) or (rows // halves if rows else None),
    )


def _experts(tensors: Mapping[Role, Seen], query: Query) -> int | None:
    for role in WEIGHTS:
        seen = tensors.get(role)
        if seen is not None:
            for shape in (seen.what.physical_shape, seen.what.logical_shape):
                if shape is not None and len(shape) == 3:
                    return shape[0]
    total = query.num_experts
    return total // query.ep if total and not total % query.ep else None


def units(scene: Scene, seen: Seen, layout: Layout) -> tuple[int, int, int] | None:
    """Return a tensor's physical shape as ``(experts, rows, K)`` in the units that a layout counts."""
    shape = seen.what.physical_shape
    if shape is None or len(shape) != 3 or not all(shape):
        return None
    count, rows, k = shape
    if layout.unit != "byte":
        return count, rows, k
    bits = BITS.get((scene.query.weight_dtype if seen.role in WEIGHTS else None) or seen.what.dtype or "")
    return (count, rows, k * bits // 8) if bits else None


def _same(first: Layout, second: Layout, shape: tuple[int, int, int]) -> bool:
    try:
        return first.bind(*shape).permutation == second.bind(*shape).permutation
    except LayoutError:
        return False


def same_bytes(scene: Scene, seen: Seen, other: Layout) -> bool:
    """Whether a tensor's bytes are those of another layout, on its own shape; by permutation, not by name.

    Where the shape is unknown or does not divide, the layouts are compared on a shape that both divide.
    """
    if seen.layout is None or seen.layout.id == other.id:
        return True
    layout = seen.layout
    shape = units(scene, seen, layout if layout.unit != "any" else other)
    return scene.memo.get("same bytes", (layout, other, shape), lambda: _same_on(layout, other, shape))


def _same_on(first: Layout, second: Layout, shape: tuple[int, int, int] | None) -> bool:
    if shape is not None and _same(first, second, shape):
        return True
    return _same(first, second, _NICE[second.unit if second.unit != "any" else first.unit])


def any_of(values: Iterable[str]) -> str:
    """Return ``a or b or c``."""
    return " or ".join(dict.fromkeys(values))
