"""The runs of a deployment: every kernel that ran or will run, over its token counts, with the bytes that it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from pydantic import ValidationError

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.check.deployment.kernel_names import NamedKernel, read_names
from preshuffle.registry.check.deployment.observed_layer import Scene
from preshuffle.registry.check.deployment.possible_calls import World
from preshuffle.registry.entries import Facts, Scalar
from preshuffle.registry.kernels import DispatchCall, KernelChoice, KernelTables, dispatch, reachable_buckets
from preshuffle.registry.values.observation import ObservedKernel
from preshuffle.registry.values.query import TOKENS

Reader = Literal["aiter", "own", "unknown"]
Bucket = tuple[int, int | None, KernelChoice, "Run"]
T = TypeVar("T")

REACH = 65536
"""Token counts above this are taken to be out of reach: engines form no larger batch."""
_CALL = ("gate_mode", "bias_passed", "model_dim", "inter_dim")


@dataclass(slots=True, eq=False)
class Run:
    """One kernel, or pair of kernels, over a range of token counts. It is shared and never changed.

    Attributes:
        lo: first token count; None where it is not known.
        hi: last token count; None where it has no end, or is not known.
        reader: ``aiter`` (AITER's dispatch), ``own`` (a backend with kernels of its own) or ``unknown``.
        backend: the book's backend, ``""`` where none was named.
        backend_name: as the observation names it.
        what: how a message calls it.
        families: kernel families of stage 1 and stage 2, ``""`` where unknown.
        kernels: kernel names of stage 1 and stage 2.
        reads: the layouts that it may read, by role.
        runs_in: activation dtype.
        given: the activation dtype that AITER's call quantizes to, where a kernel was observed by name.
        unknown_names: names that no kernel family and no label knows.
        predicted: nothing was observed: AITER's dispatch says so.
    """

    lo: int | None
    hi: int | None
    reader: Reader
    what: str
    backend: str = ""
    backend_name: str = ""
    func1: str = ""
    families: tuple[str, str] = ("", "")
    kernels: tuple[str, str] = ("", "")
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runs_in: str | None = None
    given: str | None = None
    one_stage: bool | None = None
    tuned: bool | None = None
    source: str | None = None
    error: str | None = None
    unknown_names: tuple[str, ...] = ()
    predicted: bool = False
    blocked: bool = False

    def facts(self, scene: Scene, world: World | None) -> Facts:
        """Return the facts of this run alone."""
        mine: dict[str, Scalar] = {
            "tokens": self.lo,
            "reader": self.reader,
            "backend": self.backend or None,
            "backend_name": self.backend_name or None,
            "func1": self.func1 or None,
            "family1": self.families[0] or None,
            "family2": self.families[1] or None,
            "kernel1": self.kernels[0] or None,
            "kernel2": self.kernels[1] or None,
            "runs_in": self.runs_in,
            "one_stage": self.one_stage,
            "tuned": self.tuned,
            "predicted": self.predicted,
            "observed": bool(scene.applied.kernels),
        }
        if world is not None and self.reader == "aiter":
            mine["gate_mode"], mine["is_shuffled"] = world.gate_mode, world.is_shuffled
            mine["bias_passed"] = world.bias
            mine["model_dim"], mine["inter_dim"] = world.sizes
        else:
            mine.update((name, scene.facts[name]) for name in _CALL)
        return mine


class Predictor:
    """Predicts AITER's kernels over token counts; memoised by call."""

    def __init__(self, tables: KernelTables | None, memo: Memo) -> None:
        """Use kernel tables, where there are any; ``memo`` stores the predictions."""
        self.tables = tables
        self._memo = memo

    def buckets(self, scene: Scene, world: World) -> tuple[Bucket, ...]:
        """Return ``(first, last, choice, run)`` for the token counts stated, else for all within reach."""
        query = scene.query
        tokens = query.tokens if "tokens" in scene.stated else None
        key = (
            world, tokens, query.arch, query.activation, query.quant_type, query.gated, query.ep,
            scene.applied.expert_map, _weight_dtype(scene), tuple(sorted(query.env.items())),
        )  # fmt: skip
        return self._memo.get(
            "kernel runs", key, lambda: _or_nothing(lambda: tuple(self._predict(scene, world, tokens))) or ()
        )

    def at(self, scene: Scene, world: World, tokens: int) -> KernelChoice | None:
        """Return the choice at one token count; None where AITER could not be called so at all."""
        for lo, hi, choice, _ in self.buckets(scene, world):
            if lo <= tokens and (hi is None or tokens <= hi):
                return choice
        found = _or_nothing(lambda: tuple(_choices(scene, world, (tokens,), self.tables)))
        if found and _foreign(scene, found[0][2], world):
            found = tuple(_choices(scene, world, (tokens,), None))
        return found[0][2] if found else None

    def _predict(self, scene: Scene, world: World, tokens: tuple[int, ...] | None) -> Iterator[Bucket]:
        found = list(_choices(scene, world, tokens, self.tables))
        if self.tables is not None and any(_foreign(scene, choice, world) for _, _, choice in found):
            found = list(_choices(scene, world, tokens, None))
        for lo, hi, choice in found:
            yield self._bucket(lo, hi, choice)

    def _bucket(self, lo: int, hi: int | None, choice: KernelChoice) -> Bucket:
        """Return a bucket; calls that get one and the same choice share its run (the bucket keeps the choice alive)."""
        return self._memo.get("kernel run", (lo, hi, id(choice)), lambda: (lo, hi, choice, _of_choice(lo, hi, choice)))


def _choices(
    scene: Scene, world: World, tokens: tuple[int, ...] | None, tables: KernelTables | None
) -> Iterator[tuple[int, int | None, KernelChoice]]:
    for count in dict.fromkeys(tokens or ()):
        yield count, count, dispatch(_call(scene, world, count), tables, scene.book.families)
    if tokens is None:
        for bucket in reachable_buckets(_call(scene, world, TOKENS[0]), tables, families=scene.book.families):
            if bucket.lo <= REACH:
                yield bucket.lo, bucket.hi, bucket.choice


def _foreign(scene: Scene, choice: KernelChoice, world: World) -> bool:
    """Whether the row that was found names kernels of a later AITER: then the tables are not this version's."""
    names = (choice.stage1.kernel if choice.stage1 else "", choice.stage2.kernel if choice.stage2 else "")
    return bool(choice.tuned) and scene.book.families.begins_later(world.aiter, names) is not None


def _or_nothing(predict: Callable[[], T]) -> T | None:
    """Return a prediction, or None for sizes that no call can have."""
    try:
        return predict()
    except ValidationError:
        return None


def _weight_dtype(scene: Scene) -> str:
    if scene.query.weight_dtype == "i4x2" and scene.query.quant_type != "per_1x32":
        return "uint32"  # AITER's word for int4 scaled by row: eight values each
    w13 = scene.tensors.get("w13_weight")
    untyped = w13 is not None and w13.what.dtype == "uint8" and scene.query.weight_dtype == "fp4x2"
    return "uint8" if untyped else str(scene.query.weight_dtype)


def _call(scene: Scene, world: World, tokens: int) -> DispatchCall:
    query = scene.query
    masked = scene.applied.expert_map == "mask" or query.ep > 1
    return DispatchCall.model_validate(
        {
            "gfx": query.arch,
            "cu_num": world.cu_num,
            "tokens": tokens,
            "model_dim": world.sizes[0],
            "inter_dim": world.sizes[1],
            "expert": world.experts,
            "topk": world.top_k + masked,
            "activation": query.activation,
            "weight_dtype": _weight_dtype(scene),
            "quant_type": query.quant_type,
            "use_g1u1": query.gated,
            "gate_mode": world.gate_mode,
            "is_shuffled": world.is_shuffled,
            "ep": masked,
            "bias": world.bias,
            "env": query.env,
            "aiter": world.aiter,
        }
    )


def runs_in(scene: Scene, world: World | None, backends: Backends, predictor: Predictor) -> tuple[Run, ...]:
    """Return every run of a deployment in one world; ``None`` where not even a call can be guessed."""
    observed = scene.applied.kernels
    if not observed:
        return _unobserved(scene, world, predictor, backends)
    runs = [run for kernel in observed for run in _observed(scene, world, kernel, backends, predictor)]
    if world is not None and any(run.reader == "aiter" for run in runs) and all(k.tokens for k in observed):
        runs += _elsewhere(scene, world, observed, predictor)
    return tuple(runs)


def _unobserved(scene: Scene, world: World | None, predictor: Predictor, backends: Backends) -> tuple[Run, ...]:
    if scene.applied.swizzle_mx_scale is not None:  # an argument that only Triton's kernels have
        return tuple(_own(scene, "triton", "triton", None, backends))
    if scene.applied.gate_mode is not None or scene.laid_out:
        return tuple(_predicted(scene, world, predictor)) or (Run(None, None, "aiter", "AITER's kernel"),)
    return (Run(None, None, "unknown", "an unknown kernel"),)


def _predicted(scene: Scene, world: World | None, predictor: Predictor) -> Iterator[Run]:
    if world is not None:
        yield from (run for _, _, _, run in predictor.buckets(scene, world))


def _of_choice(lo: int, hi: int | None, choice: KernelChoice) -> Run:
    first, second = choice.stage1, choice.stage2
    reads = {role: (layout,) for stage in (first, second) if stage for role, layout in stage.reads.items()}
    name = (first.kernel or first.func) if first else "AITER"
    return Run(
        lo,
        hi,
        "aiter",
        name,
        backend="aiter",
        func1=first.func if first else "",
        families=((first.family or "") if first else "", (second.family or "") if second else ""),
        kernels=(first.kernel if first else "", second.kernel if second else ""),
        reads=reads,
        runs_in=choice.activation_dtype,
        one_stage=choice.run_1stage,
        tuned=choice.tuned,
        source=choice.source,
        error=choice.error,
        predicted=True,
    )


def _elsewhere(scene: Scene, world: World, observed: Sequence[ObservedKernel], predictor: Predictor) -> Iterable[Run]:
    """AITER's kernels at the token counts for which nothing was observed."""
    counts = [kernel.tokens for kernel in observed if kernel.tokens]
    for lo, hi, _, run in predictor.buckets(scene, world):
        if not any(lo <= count and (hi is None or count <= hi) for count in counts):
            yield run


def _observed(
    scene: Scene, world: World | None, kernel: ObservedKernel, backends: Backends, predictor: Predictor
) -> Iterator[Run]:
    names = (kernel.stage1 or "", kernel.stage2 or "")
    backend = backends.find(kernel.backend) if kernel.backend else None
    if any(names) and (kernel.backend is None or (backend and backends.through_aiter(backend, scene))):
        yield _named(scene, world, kernel, names, predictor)
    elif backend is None:
        yield Run(kernel.tokens, kernel.tokens, "unknown", kernel.backend or "an unknown kernel")
    elif backends.through_aiter(backend, scene):
        name = kernel.backend or ""
        for run in _at(scene, world, kernel.tokens, predictor) or [Run(kernel.tokens, kernel.tokens, "aiter", name)]:
            yield replace(run, backend=backend.id, backend_name=name)
    else:
        yield from _own(scene, backend.id, kernel.backend or "", kernel.tokens, backends)


def _at(scene: Scene, world: World | None, tokens: int | None, predictor: Predictor) -> list[Run]:
    if world is None:
        return []
    if tokens is None:
        return list(_predicted(scene, world, predictor))
    choice = predictor.at(scene, world, tokens)
    return [_of_choice(tokens, tokens, choice)] if choice is not None else []


def _own(scene: Scene, id: str, name: str, tokens: int | None, backends: Backends) -> Iterator[Run]:
    variant = backends.variant(backends.find(id), scene)
    reads: dict[str, tuple[str, ...]] = dict(variant.reads.items()) if variant else {}
    label = backends.label(scene.applied.swizzle_mx_scale)
    if label is not None and scene.group == 32:
        reads |= {role: label.layouts for role in ("w13_weight_scale", "w2_weight_scale")}
    dtype = variant.runs_in if variant else None
    yield Run(tokens, tokens, "own", name, backend=id, backend_name=name, reads=reads, runs_in=dtype)


def _named(
    scene: Scene, world: World | None, kernel: ObservedKernel, names: tuple[str, str], predictor: Predictor
) -> Run:
    at = kernel.tokens or (scene.query.tokens[0] if "tokens" in scene.stated else None)
    choice = predictor.at(scene, world, at) if world is not None and at is not None else None
    found: NamedKernel = read_names(scene, world, names, choice)
    return Run(
        kernel.tokens,
        kernel.tokens,
        "aiter",
        names[0] or names[1],
        backend="aiter",
        backend_name=kernel.backend or "",
        families=found.families,
        kernels=names,
        reads=found.reads,
        runs_in=found.takes or (choice.activation_dtype if choice else None),
        given=choice.activation_dtype if choice and found.named_takes else None,
        one_stage=found.one_stage,
        unknown_names=found.unknown,
        blocked=scene.book.families.begins_later(scene.query.aiter, names) is not None,
    )
