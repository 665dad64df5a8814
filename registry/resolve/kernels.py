"""Kernels of a decision, and why none are predicted."""

from __future__ import annotations

from preshuffle.registry.base.frozen import unvalidated
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import TABLE
from preshuffle.registry.kernels import DispatchCall
from preshuffle.registry.layer import MoELayer, PossibleCall, Predictor, dispatch_call, layer_of, possible_calls
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.observation_of import DISPATCHED, is_predicted, observation_of
from preshuffle.registry.values.decision import CallDecision, Decision, KernelBucket
from preshuffle.registry.values.query import Query


def call_of_decision(
    decision: Decision, query: Query, book: Book, tokens: int, memo: Memo | None = None
) -> DispatchCall | None:
    """Return a decision's call as AITER's dispatch sees it.

    None where the compute units are not known, or another function is called.
    """
    observation = observation_of(decision, query)
    layer = layer_of(observation.query, book, memo, observation.applied)
    call = _certain_call(layer, decision.call)
    return None if call is None else dispatch_call(layer, call, tokens)


def predict_kernels(layer: MoELayer, call: CallDecision, predictor: Predictor) -> tuple[KernelBucket, ...]:
    """Return the kernels of a decided layer at the query's token counts.

    None where the compute units are not known, or another function is called.

    Args:
        layer: as it runs where the decision is followed.
        call: the decision's.
        predictor: knows the kernel tables.
    """
    possible = _certain_call(layer, call)
    if possible is None:
        return ()
    return _buckets(layer, possible, predictor)


def _buckets(layer: MoELayer, call: PossibleCall, predictor: Predictor) -> tuple[KernelBucket, ...]:
    tokens, choices = layer.query.tokens, predictor.predict(layer, call).choices
    return tuple(
        unvalidated(KernelBucket, {"tokens": count, **choice.__dict__})
        for count, choice in zip(tokens, choices, strict=False)
    )


def observed_kernels(layer: MoELayer, predictor: Predictor) -> tuple[KernelBucket, ...]:
    """Return the kernels of a reported call at the query's token counts.

    What was not reported of the call is the most plausible. None where no call was reported, kernels of another
    function or backend run, another table is read, or the compute units are not known.

    Args:
        layer: with what was applied.
        predictor: knows the kernel tables.
    """
    applied = layer.applied
    function = applied.function or DISPATCHED
    if applied.kernels or not is_predicted(function) or (applied.gate_mode is None and not layer.laid_out):
        return ()
    if len(layer.compute_units) != 1 or layer.slots.table != TABLE:
        return ()
    possible = next(possible_calls(layer), None)
    return () if possible is None else _buckets(layer, possible, predictor)


def _certain_call(layer: MoELayer, call: CallDecision) -> PossibleCall | None:
    """Return the call that AITER gets; its version left out is the newest.

    None where another function is called, another table is read, or the compute units are not known.
    """
    if not is_predicted(call.function) or len(layer.compute_units) != 1 or layer.slots.table != TABLE:
        return None
    return next(possible_calls(layer), None)


def why_not_predicted(
    query: Query, call: CallDecision, book: Book, field: str = "cu_num"
) -> tuple[str, tuple[str, ...]]:
    """Say why no kernels are predicted, and which fields are missing.

    Either another function is called than AITER's dispatch, or it reads another table than those that are known, or the
    number of compute units is not known.

    Args:
        field: how the caller's user spells the query's ``cu_num``.
    """
    if unknown := layer_of(query, book).slots.unknown_table:
        return unknown, ()
    if not is_predicted(call.function):
        return f"{call.function} is called, and only kernels of AITER's {DISPATCHED} can be predicted", ()
    arch, query = book.arch_names.complete(query)
    sizes = ", ".join(f"{product} {units}" for product, units in arch.cu_num.items()) if arch else "unknown"
    text = f"{query.arch} comes with different numbers of compute units ({sizes})"
    return f"{text}: name the product as arch, or pass {field}", ("cu_num",)
