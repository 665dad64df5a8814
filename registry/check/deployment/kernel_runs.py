"""Kernel runs of a deployment: observed and predicted kernels over token counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.check.deployment.kernel_names import NamedKernel, known_of, read_names
from preshuffle.registry.entries import Facts, Scalar
from preshuffle.registry.kernels import KernelChoice, TokenBucket
from preshuffle.registry.layer import MoELayer, PossibleCall, Predictor
from preshuffle.registry.resolve import EngineRuns
from preshuffle.registry.values.observation import ObservedKernel

Reader = Literal["aiter", "own", "unknown"]
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
        known: kind and id of the evidence for that, by role; nothing where the book does not say.
        runs_in: activation dtype.
        quantized_to: the activation dtype that AITER's call quantizes to, where a kernel was observed by name.
        block_m: rows per block of the token sort, where AITER's dispatch chose it.
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
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    runs_in: str | None = None
    quantized_to: str | None = None
    block_m: int | None = None
    one_stage: bool | None = None
    tuned: bool | None = None
    source: str | None = None
    error: str | None = None
    unknown_names: tuple[str, ...] = ()
    predicted: bool = False
    blocked: bool = False
    _own: Facts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note the facts that are the same in every layer."""
        self._own = {
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
            "block_m": self.block_m,
            "one_stage": self.one_stage,
            "tuned": self.tuned,
            "predicted": self.predicted,
        }

    def facts(self, layer: MoELayer, call: PossibleCall | None) -> Facts:
        """Return the facts of this run, by the names that conditions use."""
        facts: dict[str, Scalar] = {**self._own, "observed": bool(layer.applied.kernels)}
        if call is not None and self.reader == "aiter":
            facts["gate_mode"], facts["is_shuffled"] = call.gate_mode, call.is_shuffled
            facts["bias_passed"] = call.bias
            facts["doweight_stage1"] = call.doweight_stage1
            facts["model_dim"], facts["inter_dim"] = call.sizes
        else:
            facts.update((name, layer.facts[name]) for name in _CALL)
        return facts


def kernel_runs(
    layer: MoELayer, call: PossibleCall | None, backends: Backends, predictor: Predictor, implied: EngineRuns
) -> tuple[KernelRun, ...]:
    """Return a deployment's kernel runs under one possible call.

    ``call`` is None where none fits; ``implied`` is what the engine runs by its rules.
    """
    observed = layer.applied.kernels
    if not any(kernel.stage1 or kernel.stage2 for kernel in observed) and (behind := _behind_function(layer)):
        return (behind,)
    if not observed:
        return _unobserved(layer, call, predictor, backends, implied)
    runs = [run for kernel in observed for run in _observed(layer, call, kernel, backends, predictor)]
    if call is not None and any(run.reader == "aiter" for run in runs) and all(k.tokens for k in observed):
        runs += _unobserved_tokens(layer, call, observed, predictor)
    return tuple(runs)


def _behind_function(layer: MoELayer) -> KernelRun | None:
    """Return the kernels of a called function that names its families; None for any other.

    A family reads what any of its variants reads.
    """
    function = layer.book.entries["functions"].get(layer.applied.function or "")
    if function is None or not function.families:
        return None
    families = [layer.book.families.by_id[id] for id in function.families]
    reads: dict[str, dict[str, None]] = {}
    for role, layout in (pair for family in families for variant in family.variants for pair in variant.reads.items()):
        reads.setdefault(role, {})[layout] = None
    first = next((family.id for family in families if family.stage != "2"), "")
    second = next((family.id for family in families if family.stage == "2"), "")
    layouts = {role: tuple(names) for role, names in reads.items()}
    return KernelRun(None, None, "own", function.id, families=(first, second), reads=layouts)


def _unobserved(
    layer: MoELayer, call: PossibleCall | None, predictor: Predictor, backends: Backends, implied: EngineRuns
) -> tuple[KernelRun, ...]:
    if layer.applied.swizzle_mx_scale is not None:  # an argument that only Triton's kernels have
        return tuple(_own_kernels(layer, "triton", "triton", None, backends))
    called = layer.book.entries["functions"].get(layer.applied.function or "")
    backend = called.backends[0] if called is not None and len(called.backends) == 1 else None
    if backend is None and implied.named is None:
        backend = implied.backend
    if backend not in (None, "aiter"):
        return tuple(_own_kernels(layer, backend, backend, None, backends))
    if layer.applied.gate_mode is not None or layer.laid_out or backend == "aiter":
        run = KernelRun(None, None, "aiter", "AITER's kernel", reads=implied.reads())
        return _predicted(layer, call, predictor) or (run,)
    if implied.named is not None:
        return tuple(_observed(layer, call, ObservedKernel(backend=implied.named), backends, predictor))
    return (KernelRun(None, None, "unknown", "an unknown kernel"),)


def _predicted(layer: MoELayer, call: PossibleCall | None, predictor: Predictor) -> tuple[KernelRun, ...]:
    """Return the runs of all token counts; calls with the same ranges share them.

    The ranges are stored beside them, so that their ``id`` stays their own.
    """
    if call is None:
        return ()
    judged, aiter = predictor.predict(layer, call).judged, call.aiter

    def runs() -> tuple[tuple[TokenBucket, ...], tuple[KernelRun, ...]]:
        return judged, tuple(_run_of(layer, call, bucket) for bucket in judged)

    return layer.memo.get("kernel runs", (id(judged), aiter), runs)[1]


def _run_of(layer: MoELayer, call: PossibleCall, bucket: TokenBucket) -> KernelRun:
    """Return a bucket's run; calls with the same choice share it.

    The choice is stored beside it, so that its ``id`` stays its own.
    """
    later = layer.book.families.row_of_later(call.aiter, bucket.choice) is not None
    key = (bucket.lo, bucket.hi, id(bucket.choice), later)

    def run() -> tuple[KernelChoice, KernelRun]:
        made = _run_of_choice(bucket.lo, bucket.hi, bucket.choice)
        return bucket.choice, replace(made, blocked=True) if later else made

    return layer.memo.get("kernel run", key, run)[1]


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
        known={role: known for stage in (first, second) if stage for role, known in known_of(stage)},
        runs_in=choice.activation_dtype,
        block_m=choice.block_m,
        one_stage=choice.run_1stage,
        tuned=choice.tuned,
        source=choice.source,
        error=choice.error,
        predicted=True,
    )


def _unobserved_tokens(
    layer: MoELayer, call: PossibleCall, observed: Sequence[ObservedKernel], predictor: Predictor
) -> Iterable[KernelRun]:
    """Yield AITER's kernels at the token counts that were not observed."""
    counts = [kernel.tokens for kernel in observed if kernel.tokens]
    for bucket in predictor.predict(layer, call).judged:
        if not any(bucket.lo <= count and (bucket.hi is None or count <= bucket.hi) for count in counts):
            yield _run_of(layer, call, bucket)


def _observed(
    layer: MoELayer, call: PossibleCall | None, kernel: ObservedKernel, backends: Backends, predictor: Predictor
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
    layer: MoELayer, call: PossibleCall | None, tokens: int | None, predictor: Predictor
) -> list[KernelRun]:
    if call is None:
        return []
    if tokens is None:
        return list(_predicted(layer, call, predictor))
    choice = predictor.at(layer, call, tokens)
    return [_run_of_choice(tokens, tokens, choice)] if choice is not None else []


def _own_kernels(layer: MoELayer, id: str, name: str, tokens: int | None, backends: Backends) -> Iterator[KernelRun]:
    variant = backends.variant(backends.find(id), layer)
    reads: dict[str, tuple[str, ...]] = dict(variant.reads.items()) if variant else {}
    label = backends.label(layer.applied.swizzle_mx_scale)
    if label is not None and layer.group == 32:
        reads |= {role: label.layouts for role in ("w13_weight_scale", "w2_weight_scale")}
    dtype = variant.runs_in if variant else None
    yield KernelRun(tokens, tokens, "own", name, backend=id, backend_name=name, reads=reads, runs_in=dtype)


def _named_kernels(
    layer: MoELayer,
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
        known=found.known,
        runs_in=found.takes or (choice.activation_dtype if choice else None),
        quantized_to=choice.activation_dtype if choice and found.named_takes else None,
        one_stage=found.one_stage,
        unknown_names=found.unknown,
        blocked=layer.book.families.begins_later(layer.query.aiter, names) is not None,
    )
