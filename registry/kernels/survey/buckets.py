"""Token ranges over which AITER's choice is constant.

A decision must hold at every token count, not only at sampled ones.
"""

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour
from preshuffle.registry.kernels.aiter_versions.dispatch_book import OneStageCondition
from preshuffle.registry.kernels.aiter_versions.padding import boundaries, tier_value
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice
from preshuffle.registry.kernels.dispatch.activation import activation_dtype, activation_rule
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.dispatch.dispatch import check_call, open_call, outcome
from preshuffle.registry.kernels.dispatch.grouped import is_grouped
from preshuffle.registry.kernels.dispatch.heuristics import (
    one_stage_conditions,
    runs_one_stage,
    untuned_blocks_m,
    untuned_k_split,
)
from preshuffle.registry.kernels.dispatch.stages import OWN_BLOCK_M, TILE_K2, token_steps
from preshuffle.registry.kernels.errors import DispatchError, env_int
from preshuffle.registry.kernels.families.families import Families
from preshuffle.registry.kernels.tables.tables import KernelTables, TableSet

# Apart from the padded count itself, what may differ while the same kernels run in the same way.
_NOT_COMPARED = frozenset({"padded_tokens", "source", "notes"})
_LARGEST = 1 << 62
_outcome = attrgetter(*(name for name in KernelChoice.model_fields if name not in _NOT_COMPARED))
# What rules read of a call only to find a row, or through its summary.
_SIZES = frozenset({"cu_num", "tokens", "model_dim", "inter_dim", "expert", "topk", "hidden_pad", "intermediate_pad"})
_kind = attrgetter(*(name for name in DispatchCall.model_fields if name not in _SIZES | {"env", "aiter"}))
_Values = tuple[str, int | str, int]
_Outcome = tuple[KernelChoice, str, object]


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """A range of token counts with one outcome.

    Attributes:
        lo: Its first token count.
        hi: Its last; None if it has no end.
        choice: The outcome at ``lo``; ``padded_tokens``, ``source`` and ``notes`` may differ within the range.
    """

    lo: int
    hi: int | None
    choice: KernelChoice


class _Summary:
    """Summary of what the token count changes in a case.

    It is cheap to compute, and where it is the same the outcome is the same.

    It reads what the rules read (``token_steps``, the heuristics, the activation dtype), for sizes without a
    table row only.

    Attributes:
        points: Every token count at which the outcome may change, and its padded count.
        values: ``(activation dtype, K split or what else runs, block size)`` at each point; None where that does not
            determine the outcome. Empty where the call cannot be summarised.
    """

    def __init__(self, case: DispatchCase, tables: TableSet | None, upto: int | None) -> None:
        """Summarise a call up to a token count."""
        self._case = case
        self._bound = _activation_bound(case)
        key = (case.behaviour, max(1, self._bound), upto)
        self.points = case.families.memo.get("padded tokens", key, lambda: _padded(*key))
        dtypes = ("", "")
        try:
            check_call(case)
            dtypes = activation_dtype(case, tokens=0), activation_dtype(case, tokens=_LARGEST)
            self.usable = tables is None or not tables.index(case.behaviour).knows(case)
        except DispatchError:
            self.usable = True  # it raises at any count
        self.values = tuple(self._summarise(dtypes, tables)) if self.usable else ()

    def _summarise(self, dtypes: tuple[str, str], tables: TableSet | None) -> Iterator[_Values | None]:
        case, bound = self._case, self._bound
        by_dtype = {dtype: _conditions(case, dtype, tables) for dtype in dict.fromkeys(dtypes)}
        blocks = untuned_blocks_m(case, (padded for _, padded in self.points))
        for (point, case.token), block in zip(self.points, blocks, strict=True):
            dtype = dtypes[point >= bound]
            conditions = by_dtype[dtype]
            if conditions is None:
                yield None
            elif isinstance(conditions, str):
                yield dtype, conditions, 0
            elif conditions and runs_one_stage(case, conditions):
                yield dtype, "one stage", 0
            else:
                try:
                    yield dtype, untuned_k_split(case), block
                except DispatchError as error:
                    yield dtype, str(error), 0

    def at(self, index: int, rule: str) -> Hashable | None:
        """Return the summary at one point under a stage rule.

        None where the outcome must be computed in full.
        """
        values = self.values[index]
        if values is None:
            return None
        key = (self._case.behaviour, rule)
        steps = self._case.families.memo.get("token steps", key, lambda: token_steps(*key))
        step = bisect_right(steps, self.points[index][1])
        return values[0], values[1], step, 0 if rule in OWN_BLOCK_M else values[2]

    def kind(self, tables: TableSet | None) -> Hashable | None:
        """Return what outcomes depend on besides the summary.

        None where that is not known.
        """
        if not self.usable or None in self.values:
            return None
        case = self._case
        env = tuple(case.env.items()) if case.env else ()
        notes = tuple(case.notes)
        divides = case.call.inter_dim % TILE_K2 == 0
        return case.behaviour, tables is None, case.gfx, env, notes, divides, _kind(case.call)


def _conditions(case: DispatchCase, dtype: str, tables: TableSet | None) -> tuple[OneStageCondition, ...] | str | None:
    """Return the one-stage conditions of a call, or AITER's error.

    None where rows of the grouped table count.
    """
    case.activation_dtype = dtype
    if tables is not None and is_grouped(case):
        return None
    try:
        return one_stage_conditions(case)
    except DispatchError as error:
        return str(error)


def _padded(behaviour: Behaviour, bound: int, upto: int | None) -> tuple[tuple[int, int], ...]:
    tiers = behaviour.data.padding
    points = sorted({1, *boundaries(tiers, max(tier.below or 1 for tier in tiers)), bound})
    return tuple((point, tier_value(tiers, point)) for point in points if upto is None or point <= upto)


def _activation_bound(case: DispatchCase) -> int:
    """Return the token count at which the activation dtype changes.

    0 where it does not.
    """
    rule = activation_rule(case)
    if rule is None or rule.bound is None:
        return 0
    try:
        return env_int(case.env, rule.bound, case.behaviour.data.activation_bounds[rule.bound])
    except DispatchError:
        return 0


def reachable_buckets(
    call: DispatchCall,
    tables: KernelTables | None = None,
    upto: int | None = None,
    families: Families | None = None,
) -> list[TokenBucket]:
    """Return every outcome of a call over its token count.

    The choice depends on the padded token count and, for MX weights, on the raw one against a bound; so it is constant
    between the points where either changes, and a few dozen predictions cover every token count.

    Args:
        call: The call; its own ``tokens`` do not matter.
        tables: Tuned tables, as for ``dispatch``.
        upto: Ranges that begin above this token count are left out (the last one still has no end).
        families: As for ``dispatch``.

    Returns:
        Ranges from 1 on without gaps, the last one without end; neighbours differ in outcome.

    Example:
        >>> call = DispatchCall(gfx="gfx950", cu_num=256, tokens=1, model_dim=3072, inter_dim=3072, expert=128, topk=4,
        ...                     activation="Swiglu", weight_dtype="fp4x2", quant_type="per_1x32")
        >>> [bucket.lo for bucket in reachable_buckets(call) if bucket.choice.activation_dtype == "fp4x2"][0]
        256
    """
    case, chosen = open_call(call, tables, families)
    return list(_ranges(case, chosen, _Summary(case.at(1), chosen, upto)).buckets)


def survey(
    call: DispatchCall,
    tokens: Sequence[int],
    tables: KernelTables | None = None,
    upto: int | None = None,
    families: Families | None = None,
) -> tuple[list[KernelChoice], tuple[TokenBucket, ...]]:
    """Return ``dispatch`` at token counts together with ``reachable_buckets``.

    Calls with the same outcomes share the tuple of ranges.
    """
    case, chosen = open_call(call, tables, families)
    summary = _Summary(case.at(1), chosen, upto)
    ranges = _ranges(case, chosen, summary)
    tiers, last = case.behaviour.data.padding, upto or _LARGEST
    return [
        ranges.at(count, tier_value(tiers, count))
        if summary.usable and 1 <= count <= last
        else outcome(case.at(count), chosen)
        for count in tokens
    ], ranges.buckets


class _Ranges:
    """Ranges of one kind of call, and choices within them by padded count.

    Attributes:
        buckets: the ranges.
    """

    def __init__(self, buckets: tuple[TokenBucket, ...]) -> None:
        self.buckets = buckets
        self._starts = [bucket.lo for bucket in buckets]
        self._padded: dict[tuple[int, int], KernelChoice] = {}

    def at(self, count: int, padded: int) -> KernelChoice:
        """Return the choice at a token count, which AITER pads to ``padded``."""
        index = bisect_right(self._starts, count) - 1
        choice = self._padded.get((index, padded))
        if choice is None:
            choice = self.buckets[index].choice
            if choice.padded_tokens != padded:
                choice = choice.altered(padded_tokens=padded)
            self._padded[index, padded] = choice
        return choice


def _ranges(case: DispatchCase, chosen: TableSet | None, summary: _Summary) -> _Ranges:
    """Return the ranges of a call, memoised by its summary."""
    kind = summary.kind(chosen)
    if kind is None:
        return _Ranges(_compute_ranges(case, chosen, summary, Memo()))
    # One memo per kind: its key is long, and at each point only the summary differs.
    memo = case.families.outcomes.get("kinds", kind, Memo)
    key = (summary.points, summary.values)
    return memo.get("ranges", key, lambda: _Ranges(_compute_ranges(case, chosen, summary, memo)))


def _compute_ranges(
    case: DispatchCase, chosen: TableSet | None, summary: _Summary, memo: Memo
) -> tuple[TokenBucket, ...]:
    def outcome_at(point: int) -> _Outcome:
        here = case.at(point)
        choice = outcome(here, chosen)
        return choice, here.rule, _outcome(choice)

    ranges: list[TokenBucket] = []
    rule = ""
    values: Hashable | None = None
    previous: object = None
    for index, (point, _) in enumerate(summary.points):
        if summary.usable:
            before, values = values, summary.at(index, rule)
            if values is not None and values == before:
                continue
        key = (point, summary.values[index]) if summary.usable else point
        choice, decided, result = memo.get("points", key, partial(outcome_at, point))
        if decided != rule:
            rule, values = decided, summary.at(index, decided) if summary.usable else None
        if ranges and previous == result:
            continue
        if ranges:
            ranges[-1] = TokenBucket(ranges[-1].lo, point - 1, ranges[-1].choice)
        ranges.append(TokenBucket(point, None, choice))
        previous = result
    return tuple(ranges)
