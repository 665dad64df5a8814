"""Kernel runs of a deployment: observed and predicted kernels over token counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from pydantic import ValidationError

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.check.deployment.kernel_names import NamedKernel, read_names
from preshuffle.registry.check.deployment.observed_layer import ObservedLayer
from preshuffle.registry.check.deployment.possible_calls import PossibleCall, call_dtype
from preshuffle.registry.entries import TABLE, Facts, Scalar
from preshuffle.registry.kernels import DispatchCall, KernelChoice, KernelTables, dispatch, reachable_buckets
from preshuffle.registry.resolve import EngineRuns
from preshuffle.registry.values.observation import ObservedKernel
from preshuffle.registry.values.query import TOKENS

Reader = Literal["aiter", "own", "unknown"]
Bucket = tuple[int, int | None, KernelChoice, "KernelRun"]
T = TypeVar("T")

REACH = 65536
"""Largest token count that is predicted: engines form no larger batch."""
_CALL = ("gate_mode", "bias_passed", "model_dim", "inter_dim", "doweight_stage1")


@dataclass(slots=True, eq=False)
class KernelRun:
    """One kernel, or pair of kernels, over a range of token counts.

    It is shared between deployments and must not be changed.

    Attributes:
        lo: first token count; None where it is not known.
        hi: last token count; None where it has no end, or is not known.
        reader: ``aiter`` (AITER's dispatch), ``own`` (a backend with kernels of its own) or ``unknown``.
        backend: the book's backend, ``""`` where none was named.
        backend_name: as the observation names it.
        name: its name in messages.
        families: kernel families of stage 1 and stage 2, ``""`` where unknown.
        kernels: kernel names of stage 1 and stage 2.
        reads: the layouts that it may read, by role.
        runs_in: activation dtype.
        quantized_to: the activation dtype that AITER's call quantizes to, where a kernel was observed by name.
        unknown_names: names that no kernel family and no label knows.
        predicted: no kernel was observed; AITER's dispatch predicts this one.
    """

    lo: int | None
    hi: int | None
    reader: Reader
    name: str
    backend: str = ""
    backend_name: str = ""
    func1: str = ""
    families: tuple[str, str] = ("", "")
    kernels: tuple[str, str] = ("", "")
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runs_in: str | None = None
    quantized_to: str | None = None
    one_stage: bool | None = None
    tuned: bool | None = None
    source: str | None = None
    error: str | None = None
    unknown_names: tuple[str, ...] = ()
    predicted: bool = False
    blocked: bool = False

    def facts(self, layer: ObservedLayer, call: PossibleCall | None) -> Facts:
        """Return the facts of this run, by the names that conditions use."""
        facts: dict[str, Scalar] = {
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
            "observed": bool(layer.applied.kernels),
        }
        if call is not None and self.reader == "aiter":
            facts["gate_mode"], facts["is_shuffled"] = call.gate_mode, call.is_shuffled
            facts["bias_passed"] = call.bias
            facts["doweight_stage1"] = call.doweight_stage1
            facts["model_dim"], facts["inter_dim"] = call.sizes
        else:
            facts.update((name, layer.facts[name]) for name in _CALL)
        return facts


class Predictor:
    """Predicts AITER's kernels over token counts; memoised by call."""

    def __init__(self, tables: KernelTables | None, memo: Memo) -> None:
        """Use kernel tables, where there are any; ``memo`` stores the predictions."""
        self.tables = tables
        self._memo = memo

    def buckets(self, layer: ObservedLayer, call: PossibleCall) -> tuple[Bucket, ...]:
        """Return ``(first, last, choice, run)`` per range of token counts.

        Those are the token counts that the query states, else all up to ``REACH``.
        """
        if layer.slots is not None and layer.slots.table != TABLE:  # its rows are not known
            return ()
        query = layer.query
        tokens = query.tokens if "tokens" in layer.stated else None
        key = (
            call, tokens, query.arch, query.activation, query.quant_type, query.gated, query.ep,
            layer.applied.expert_map, layer.masked_column, call_dtype(layer), tuple(sorted(query.env.items())),
        )  # fmt: skip
        return self._memo.get(
            "kernel runs", key, lambda: _or_none(lambda: tuple(self._predict(layer, call, tokens))) or ()
        )

    def at(self, layer: ObservedLayer, call: PossibleCall, tokens: int) -> KernelChoice | None:
        """Return AITER's choice at one token count.

        None where AITER cannot be called so.
        """
        for lo, hi, choice, _ in self.buckets(layer, call):
            if lo <= tokens and (hi is None or tokens <= hi):
                return choice
        if layer.slots is not None and layer.slots.table != TABLE:
            return None
        found = _or_none(lambda: tuple(_choices(layer, call, (tokens,), self.tables)))
        if found and self._are_foreign(layer, call, found):
            found = tuple(_choices(layer, call, (tokens,), None))
        return found[0][2] if found else None

    def _predict(self, layer: ObservedLayer, call: PossibleCall, tokens: tuple[int, ...] | None) -> Iterator[Bucket]:
        found = list(_choices(layer, call, tokens, self.tables))
        if self._are_foreign(layer, call, found):
            found = list(_choices(layer, call, tokens, None))
        for lo, hi, choice in found:
            bucket = self._bucket(lo, hi, choice)
            if layer.book.families.row_of_later(call.aiter, choice) is not None:
                bucket = (*bucket[:3], replace(bucket[3], blocked=True))
            yield bucket

    def _are_foreign(
        self, layer: ObservedLayer, call: PossibleCall, found: Sequence[tuple[int, int | None, KernelChoice]]
    ) -> bool:
        """Whether tables not tied to this AITER choose kernels of a later one."""
        if self.tables is None or self.tables.is_tied_to(call.aiter):
            return False
        later = layer.book.families.row_of_later
        return any(later(call.aiter, choice) is not None for _, _, choice in found)

    def _bucket(self, lo: int, hi: int | None, choice: KernelChoice) -> Bucket:
        """Return a bucket; calls with the same choice share its run.

        The bucket keeps the choice alive, so that its ``id`` stays its own.
        """
        return self._memo.get(
            "kernel run", (lo, hi, id(choice)), lambda: (lo, hi, choice, _run_of_choice(lo, hi, choice))
        )


def _choices(
    layer: ObservedLayer, call: PossibleCall, tokens: tuple[int, ...] | None, tables: KernelTables | None
) -> Iterator[tuple[int, int | None, KernelChoice]]:
    for count in dict.fromkeys(tokens or ()):
        yield count, count, dispatch(_call(layer, call, count), tables, layer.book.families)
    if tokens is None:
        for bucket in reachable_buckets(_call(layer, call, TOKENS[0]), tables, families=layer.book.families):
            if bucket.lo <= REACH:
                yield bucket.lo, bucket.hi, bucket.choice


def _or_none(predict: Callable[[], T]) -> T | None:
    """Return a prediction, or None for sizes that no call can have."""
    try:
        return predict()
    except ValidationError:
        return None


def _call(layer: ObservedLayer, call: PossibleCall, tokens: int) -> DispatchCall:
    query = layer.query
    masked = layer.applied.expert_map == "mask" or query.ep > 1
    return DispatchCall.model_validate(
        {
            "gfx": query.arch,
            "cu_num": call.cu_num,
            "tokens": tokens,
            "model_dim": call.sizes[0],
            "inter_dim": call.sizes[1],
            "expert": call.experts,
            "topk": call.top_k + layer.masked_column,
            "activation": query.activation,
            "weight_dtype": call_dtype(layer),
            "quant_type": query.quant_type,
            "use_g1u1": query.gated,
            "doweight_stage1": call.doweight_stage1,
            "gate_mode": call.gate_mode,
            "is_shuffled": call.is_shuffled,
            "ep": masked,
            "bias": call.bias,
            "env": query.env,
            "aiter": call.aiter,
        }
    )


def kernel_runs(
    layer: ObservedLayer, call: PossibleCall | None, backends: Backends, predictor: Predictor, implied: EngineRuns
) -> tuple[KernelRun, ...]:
    """Return a deployment's kernel runs under one possible call.

    ``call`` is None where none fits; ``implied`` is what the engine runs by its rules.
    """
    observed = layer.applied.kernels
    if not observed:
        return _unobserved(layer, call, predictor, backends, implied)
    runs = [run for kernel in observed for run in _observed(layer, call, kernel, backends, predictor)]
    if call is not None and any(run.reader == "aiter" for run in runs) and all(k.tokens for k in observed):
        runs += _unobserved_tokens(layer, call, observed, predictor)
    return tuple(runs)


def _unobserved(
    layer: ObservedLayer, call: PossibleCall | None, predictor: Predictor, backends: Backends, implied: EngineRuns
) -> tuple[KernelRun, ...]:
    if layer.applied.swizzle_mx_scale is not None:  # an argument that only Triton's kernels have
        return tuple(_own_kernels(layer, "triton", "triton", None, backends))
    if layer.applied.gate_mode is not None or layer.laid_out or implied.backend == "aiter":
        run = KernelRun(None, None, "aiter", "AITER's kernel", reads=implied.reads())
        return tuple(_predicted(layer, call, predictor)) or (run,)
    if implied.backend is not None:
        return tuple(_own_kernels(layer, implied.backend, implied.backend, None, backends))
    return (KernelRun(None, None, "unknown", "an unknown kernel"),)


def _predicted(layer: ObservedLayer, call: PossibleCall | None, predictor: Predictor) -> Iterator[KernelRun]:
    if call is not None:
        yield from (run for _, _, _, run in predictor.buckets(layer, call))


def _run_of_choice(lo: int, hi: int | None, choice: KernelChoice) -> KernelRun:
    first, second = choice.stage1, choice.stage2
    reads = {role: (layout,) for stage in (first, second) if stage for role, layout in stage.reads.items()}
    name = (first.kernel or first.func) if first else "AITER"
    return KernelRun(
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


def _unobserved_tokens(
    layer: ObservedLayer, call: PossibleCall, observed: Sequence[ObservedKernel], predictor: Predictor
) -> Iterable[KernelRun]:
    """Yield AITER's kernels at the token counts that were not observed."""
    counts = [kernel.tokens for kernel in observed if kernel.tokens]
    for lo, hi, _, run in predictor.buckets(layer, call):
        if not any(lo <= count and (hi is None or count <= hi) for count in counts):
            yield run


def _observed(
    layer: ObservedLayer, call: PossibleCall | None, kernel: ObservedKernel, backends: Backends, predictor: Predictor
) -> Iterator[KernelRun]:
    names = (kernel.stage1 or "", kernel.stage2 or "")
    backend = backends.find(kernel.backend) if kernel.backend else None
    if any(names) and (kernel.backend is None or (backend and backends.through_aiter(backend, layer))):
        yield _named_kernels(layer, call, kernel, names, predictor)
    elif backend is None:
        yield KernelRun(kernel.tokens, kernel.tokens, "unknown", kernel.backend or "an unknown kernel")
    elif backends.through_aiter(backend, layer):
        name = kernel.backend or ""
        for run in _predicted_at(layer, call, kernel.tokens, predictor) or [
            KernelRun(kernel.tokens, kernel.tokens, "aiter", name)
        ]:
            yield replace(run, backend=backend.id, backend_name=name)
    else:
        yield from _own_kernels(layer, backend.id, kernel.backend or "", kernel.tokens, backends)


def _predicted_at(
    layer: ObservedLayer, call: PossibleCall | None, tokens: int | None, predictor: Predictor
) -> list[KernelRun]:
    if call is None:
        return []
    if tokens is None:
        return list(_predicted(layer, call, predictor))
    choice = predictor.at(layer, call, tokens)
    return [_run_of_choice(tokens, tokens, choice)] if choice is not None else []


def _own_kernels(
    layer: ObservedLayer, id: str, name: str, tokens: int | None, backends: Backends
) -> Iterator[KernelRun]:
    variant = backends.variant(backends.find(id), layer)
    reads: dict[str, tuple[str, ...]] = dict(variant.reads.items()) if variant else {}
    label = backends.label(layer.applied.swizzle_mx_scale)
    if label is not None and layer.group == 32:
        reads |= {role: label.layouts for role in ("w13_weight_scale", "w2_weight_scale")}
    dtype = variant.runs_in if variant else None
    yield KernelRun(tokens, tokens, "own", name, backend=id, backend_name=name, reads=reads, runs_in=dtype)


def _named_kernels(
    layer: ObservedLayer,
    call: PossibleCall | None,
    kernel: ObservedKernel,
    names: tuple[str, str],
    predictor: Predictor,
) -> KernelRun:
    tokens = kernel.tokens or (layer.query.tokens[0] if "tokens" in layer.stated else None)
    choice = predictor.at(layer, call, tokens) if call is not None and tokens is not None else None
    found: NamedKernel = read_names(layer, call, names, choice)
    return KernelRun(
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
        quantized_to=choice.activation_dtype if choice and found.named_takes else None,
        one_stage=found.one_stage,
        unknown_names=found.unknown,
        blocked=layer.book.families.begins_later(layer.query.aiter, names) is not None,
    )
