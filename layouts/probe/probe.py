"""Probe: run golden layers through a kernel and measure errors.

At several token counts, compared with float64, not with fluent text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any, Final, Literal, Protocol

import torch

from preshuffle.layouts.loader import apply
from preshuffle.layouts.probe.golden import Golden, decide_with_recipe, in_layout, make_golden, mistakes
from preshuffle.layouts.proof import Routing, laid_out_forward, relative_error
from preshuffle.registry import Decision, LayoutError, PreshuffleError, Query, Recipe, Registry
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.loading import Book

TOKENS: Final = (1, 64, 256, 1024)
Verdict = Literal["pass", "warn", "fail", "error"]
_WORST: Final[tuple[Verdict, ...]] = ("pass", "warn", "fail", "error")


class ProbeError(PreshuffleError, RuntimeError):
    """A runner cannot run a probe.

    It is not there, or lacks an argument that the bytes need.
    """


class Runner(Protocol):
    """Callable that runs a laid-out layer."""

    def __call__(
        self,
        tensors: dict[str, torch.Tensor],
        decision: Decision,
        x: torch.Tensor,
        topk_ids: torch.Tensor,
        topk_weights: torch.Tensor,
    ) -> torch.Tensor:
        """Return the layer's output.

        Args:
            tensors: what ``apply`` made, by role.
            decision: says layouts, pads and the call's arguments.
            x: ``bf16 [tokens, hidden]``, hidden without its pad.
            topk_ids: ``int32 [tokens, top_k]``.
            topk_weights: ``float32 [tokens, top_k]``.
        """


class Limits(Frozen):
    """Error limits of an activation dtype.

    Up to ``good`` is a pass, up to ``fair`` a warning, beyond it a failure.

    Attributes:
        good: relative L2 error.
        fair: likewise.
        good_cosine: cosine similarity, at least.
        fair_cosine: likewise.
    """

    good: float
    fair: float
    good_cosine: float
    fair_cosine: float


LIMITS: Final[dict[str, Limits]] = {
    "bf16": Limits(good=0.01, fair=0.03, good_cosine=0.9999, fair_cosine=0.9995),
    "fp16": Limits(good=0.01, fair=0.03, good_cosine=0.9999, fair_cosine=0.9995),
    "fp8": Limits(good=0.07, fair=0.12, good_cosine=0.9975, fair_cosine=0.99),
    "fp4x2": Limits(good=0.25, fair=0.35, good_cosine=0.965, fair_cosine=0.93),
}
"""By activation dtype. Rounding both GEMMs' inputs to it costs gpt-oss's golden layer 0.002 (bf16), 0.048 (fp8) and
0.19 (fp4x2, groups of 32) of relative L2; the mildest mistake of any golden layer costs 0.44."""
LOOSEST: Final = "fp4x2"
_RUNS_IN: Final = {"No": "bf16", "per_Tensor": "fp8", "per_Token": "fp8", "per_1x128": "fp8"}
"""Activations that AITER makes of these, whatever the token count; those of groups of 32 depend on it."""


class ProbeResult(Frozen):
    """Result of one recipe at one token count.

    Attributes:
        activation_dtype: what AITER should run the activations in, as predicted; None where it is not known.
        kernel: the kernels that AITER should pick, as predicted.
        relative_l2: the error's norm over the reference's.
        cosine: similarity with the reference, which a wrong scale does not change.
        scale: the factor by which the output fits the reference best; 0.5 is a halved output.
        microseconds: median of a call.
        looks_like: the mistake that explains the output, where one does.
        error: what the runner raised.
    """

    recipe: str
    tokens: int
    verdict: Verdict
    activation_dtype: str | None = None
    kernel: str | None = None
    relative_l2: float | None = None
    cosine: float | None = None
    scale: float | None = None
    microseconds: float | None = None
    looks_like: str | None = None
    error: str | None = None


class ProbeReport(Frozen):
    """Results of every recipe at every token count."""

    runner: str
    verdict: Verdict
    query: Query
    results: tuple[ProbeResult, ...]
    limits: dict[str, Limits]
    notes: tuple[str, ...] = ()


def reference_laid_out(
    tensors: dict[str, torch.Tensor],
    decision: Decision,
    x: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
) -> torch.Tensor:
    """Run the layer in float64 through closed-form addresses.

    A kernel for any machine.
    """
    return laid_out_forward(tensors, decision, x.double(), Routing(topk_ids.long(), topk_weights.double()))


def probe(
    runner: Runner,
    recipes: Sequence[Recipe],
    query: Query,
    *,
    registry: Registry | None = None,
    tokens: Sequence[int] = TOKENS,
    device: str | torch.device = "cpu",
    repeats: int = 20,
    name: str = "",
    notes: Sequence[str] = (),
) -> ProbeReport:
    """Run each recipe's golden layer through a runner.

    Args:
        runner: what is probed.
        recipes: laid out one after the other, from the same plain tensors.
        query: the layer's sizes and where it would run; ``golden_query`` makes one.
        registry: whose book and tables predict kernels.
        tokens: token counts; kernels and activation dtypes change with them.
        device: where the tensors go.
        repeats: calls that are timed, at most (a second's worth); 0 takes no time.
        name: of the runner, for the report.
        notes: what the report must say.

    Raises:
        LayoutError: there is no golden layer for a recipe.
        NoRecipeError: no rule answers the query.
    """
    registry = registry or Registry.default()
    query = Query.parse({**dict(query), "tokens": tuple(tokens)})
    results: list[ProbeResult] = []
    for recipe in recipes:
        decision = decide_with_recipe(recipe, query, registry)
        golden = make_golden(decision, query.top_k or 1)
        tensors = {role: tensor.clone().to(device) for role, tensor in golden.tensors.items()}
        # what a finding says is wrong is what is measured here
        apply(tensors, decision, allow={finding.code for finding in decision.findings})
        layer = _Layer(golden, tensors, torch.device(device), registry.book)
        results += [_probe_one(runner, layer, count, repeats) for count in tokens]
    verdict = max((result.verdict for result in results), key=_WORST.index, default="pass")
    label = name or getattr(runner, "__name__", type(runner).__name__)
    return ProbeReport(
        runner=label, verdict=verdict, query=query, results=tuple(results), limits=LIMITS, notes=tuple(notes)
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Comparison of an output with the reference."""

    relative: float
    cosine: float
    scale: float


@dataclass(frozen=True, slots=True)
class _Layer:
    """Golden layer laid out on a device, with its recipe's book."""

    golden: Golden
    tensors: dict[str, torch.Tensor]
    device: torch.device
    book: Book


def _probe_one(runner: Runner, layer: _Layer, tokens: int, repeats: int) -> ProbeResult:
    golden, tensors, device = layer.golden, layer.tensors, layer.device
    decision = golden.decision
    about: dict[str, Any] = {"recipe": decision.recipe, "tokens": tokens, **_predicted(decision, tokens)}
    x, routing = golden.inputs(tokens)
    arguments = (x.to(device), routing.experts.to(device, torch.int32), routing.weights.to(device))
    try:
        found = runner(tensors, decision, *arguments)
        microseconds = _timed(lambda: runner(tensors, decision, *arguments), device, repeats)
    except Exception as error:  # a kernel may raise anything; what it raised is the result
        lines = str(error).splitlines() or [""]
        return ProbeResult(**about, verdict="error", error=f"{type(error).__name__}: {lines[0]}")
    wanted = golden.reference(x, routing)
    if not isinstance(found, torch.Tensor):
        text = f"the runner returned a {type(found).__name__}, not a tensor"
        return ProbeResult(**about, verdict="error", error=text)
    if tuple(found.shape) != tuple(wanted.shape):
        text = f"the output has shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
        return ProbeResult(**about, verdict="error", error=text)
    output = found.detach().to("cpu", torch.float64)
    outcome = _compare(output, wanted)
    limits = _limits(decision, about["activation_dtype"])
    verdict = _verdict(outcome, limits)
    return ProbeResult(
        **about,
        verdict=verdict,
        relative_l2=outcome.relative if isfinite(outcome.relative) else None,
        cosine=outcome.cosine if isfinite(outcome.cosine) else None,
        scale=outcome.scale if isfinite(outcome.scale) else None,
        microseconds=microseconds,
        looks_like=None if verdict == "pass" else _explain(layer, output, limits, x, routing),
    )


def _limits(decision: Decision, predicted: str | None) -> Limits:
    """Return the error limits of a decision's activations.

    Where no kernel could be predicted, those of the coarsest activations that may have run.
    """
    weight = decision.tensors["w13_weight"].dtype
    likely = {"fp8_e4m3fn": "fp8", "i4x2": "bf16"}.get(weight, LOOSEST)
    return LIMITS.get(predicted or _RUNS_IN.get(decision.call.quant_type, likely), LIMITS[LOOSEST])


def _predicted(decision: Decision, tokens: int) -> dict[str, Any]:
    bucket = next((bucket for bucket in decision.kernels if bucket.tokens == tokens), None)
    if bucket is None:
        return {"activation_dtype": None}
    stages = [stage.kernel or stage.func for stage in (bucket.stage1, bucket.stage2) if stage]
    return {"activation_dtype": bucket.activation_dtype, "kernel": " + ".join(stages) or bucket.error}


def _timed(call: Callable[[], object], device: torch.device, repeats: int) -> float | None:
    """Return the median of a call in microseconds."""
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < repeats and (len(taken) < 1 or time.perf_counter() - begin < 1):
        _synchronise(device)
        start = time.perf_counter()
        call()
        _synchronise(device)
        taken.append(time.perf_counter() - start)
    return round(median(taken) * 1e6, 1) if taken else None


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _compare(found: torch.Tensor, wanted: torch.Tensor) -> _Outcome:
    product, own = float((found * wanted).sum()), float(found.norm())
    size = float(wanted.norm())
    return _Outcome(relative_error(found, wanted), product / (own * size) if own else 0.0, product / size**2)


def _verdict(outcome: _Outcome, limits: Limits) -> Verdict:
    # comparisons with a NaN are false: it fails
    if outcome.relative <= limits.good and outcome.cosine >= limits.good_cosine:
        return "pass"
    return "warn" if outcome.relative <= limits.fair and outcome.cosine >= limits.fair_cosine else "fail"


def _explain(layer: _Layer, found: torch.Tensor, limits: Limits, x: torch.Tensor, routing: Routing) -> str | None:
    """Return the known mistake that gives this output, or None."""
    if not bool(found.isfinite().all()):
        return "infinities or NaN in the output"
    errors = {name: relative_error(found, run(x, routing)) for name, run in mistakes(layer.golden)}
    laid = {role: tensor.cpu() for role, tensor in layer.tensors.items()}
    for layout, decision in _other_layouts(layer.golden.decision, layer.book):
        try:
            error = relative_error(found, laid_out_forward(laid, decision, x.double(), routing))
        except LayoutError:  # no kernel can read this shape so
            continue
        mistake = f"w13 read as {layout}"  # with the scales of one recipe or of another
        errors[mistake] = min(error, errors.get(mistake, error))
    name = min(errors, key=lambda key: errors[key])
    return name if errors[name] <= limits.fair else None


def _other_layouts(decision: Decision, book: Book) -> Iterator[tuple[str, Decision]]:
    """Yield decisions that read w13 as another recipe lays it out.

    Of the book's recipes, with the layout's id.
    """
    own = decision.tensors["w13_weight"]
    pairs = {("plain", "plain")}
    for recipe in book.recipes.values():
        weight, scale = recipe.tensors["w13_weight"], recipe.tensors.get("w13_weight_scale")
        if own.dtype.startswith(weight.dtype) and recipe.call.quant_type == decision.call.quant_type:
            pairs.add((weight.layout, scale.layout if scale else "plain"))
    for layout, of_scale in sorted(pairs):
        if layout == own.layout:
            continue
        changed = {"w13_weight": in_layout(own, layout, book)}
        if "w13_weight_scale" in decision.tensors:
            changed["w13_weight_scale"] = in_layout(decision.tensors["w13_weight_scale"], of_scale, book)
        yield layout, decision.model_copy(update={"tensors": {**decision.tensors, **changed}})
