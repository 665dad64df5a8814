"""The token counts at which AITER's choice changes: a decision has to hold at every one of them, not at samples."""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

from preshuffle.registry.kernels.activation import activation_dtype, activation_rule
from preshuffle.registry.kernels.behaviour import Behaviour
from preshuffle.registry.kernels.book import OneStageCondition
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.case import Case
from preshuffle.registry.kernels.choice import KernelChoice
from preshuffle.registry.kernels.dispatch import check_call, opened, outcome
from preshuffle.registry.kernels.errors import DispatchError, env_int
from preshuffle.registry.kernels.grouped import is_grouped
from preshuffle.registry.kernels.heuristics import (
    one_stage_conditions,
    runs_one_stage,
    untuned_block_m,
    untuned_k_split,
)
from preshuffle.registry.kernels.padding import boundaries, climb
from preshuffle.registry.kernels.stages import OWN_BLOCK_M, token_steps
from preshuffle.registry.kernels.tables import KernelTables, TableSet

# Apart from the padded count itself, what may differ while the same kernels run in the same way.
_UNDECIDED = frozenset({"padded_tokens", "source", "notes"})
_FAR = 1 << 62
_outcome = attrgetter(*(name for name in KernelChoice.model_fields if name not in _UNDECIDED))


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


class _Sketch:
    """What of a case its token count can change: cheap to tell, and where it is the same the outcome is.

    It looks at what the rules look at (``token_steps``, the heuristics, the activation dtype), for sizes without a
    table row only.
    """

    def __init__(self, case: Case, tables: TableSet | None) -> None:
        """Prepare the sketch of a call."""
        self._case = case
        self._conditions: dict[str, tuple[OneStageCondition, ...] | None] = {}
        self._tables = tables
        self._dtypes = ("", "")
        self._bound = _activation_bound(case)
        try:
            check_call(case)
            here = (case.behaviour, case.call, case.env, case.gfx)
            self._dtypes = activation_dtype(*here, tokens=0), activation_dtype(*here, tokens=_FAR)
            self.usable = tables is None or not tables.index(case.behaviour).knows(case)
        except DispatchError:
            self.usable = True  # it raises at any count

    def at(self, tokens: int, rule: str) -> Hashable | None:
        """Return the sketch at one token count, after a rule has decided; None where all must be worked out."""
        case = self._case
        case.token = climb(case.behaviour.data.padding, tokens)
        try:
            case.a = self._dtypes[tokens >= self._bound]
            if case.a not in self._conditions:
                by_row = self._tables is not None and is_grouped(case)
                self._conditions[case.a] = None if by_row else one_stage_conditions(case)
            conditions = self._conditions[case.a]
            if conditions is None:
                return None
            step = bisect_right(token_steps(case.behaviour, rule), case.token)
            if conditions and runs_one_stage(case, conditions):
                return case.a, step, True
            block_m = 0 if rule in OWN_BLOCK_M else untuned_block_m(case)
            return case.a, step, untuned_k_split(case), block_m
        except DispatchError as error:
            return case.a, str(error)


def _change_points(case: Case) -> list[int]:
    return sorted({1, *_padding_points(case.behaviour), max(1, _activation_bound(case))})


def _activation_bound(case: Case) -> int:
    """Return the token count from which on the activations have another dtype; 0 where there is none."""
    rule = activation_rule(case.behaviour, case.call, case.env, case.gfx)
    if rule is None or rule.bound is None:
        return 0
    try:
        return env_int(case.env, rule.bound, case.behaviour.data.activation_bounds[rule.bound])
    except DispatchError:
        return 0


@lru_cache(maxsize=64)
def _padding_points(behaviour: Behaviour) -> frozenset[int]:
    tiers = behaviour.data.padding
    return frozenset(boundaries(tiers, max(tier.below or 1 for tier in tiers)))


def reachable_buckets(
    call: DispatchCall, tables: KernelTables | None = None, upto: int | None = None
) -> list[TokenBucket]:
    """Return every outcome that a call can have over its token count.

    The choice depends on the padded token count and, for MX weights, on the raw one against a bound; so it is constant
    between the points where either changes, and a few dozen predictions cover every token count.

    Args:
        call: The call; its own ``tokens`` do not matter.
        tables: Tuned tables, as for ``dispatch``.
        upto: Ranges that begin above this token count are left out (the last one still has no end).

    Returns:
        Ranges from 1 on without gaps, the last one without end; neighbours differ in outcome.

    Example:
        >>> call = DispatchCall(gfx="gfx950", cu_num=256, tokens=1, model_dim=3072, inter_dim=3072, expert=128, topk=4,
        ...                     activation="Swiglu", weight_dtype="fp4x2", quant_type="per_1x32")
        >>> [bucket.lo for bucket in reachable_buckets(call) if bucket.choice.activation_dtype == "fp4x2"][0]
        256
    """
    case, chosen = opened(call, tables)
    return _buckets(case, chosen, _Sketch(case.at(1), chosen), upto)


def survey(
    call: DispatchCall, tokens: Sequence[int], tables: KernelTables | None = None, upto: int | None = None
) -> tuple[list[KernelChoice], list[TokenBucket]]:
    """Return what ``dispatch`` gives at some token counts, and ``reachable_buckets``, with their work shared."""
    case, chosen = opened(call, tables)
    sketch = _Sketch(case.at(1), chosen)
    buckets = _buckets(case, chosen, sketch, upto)
    if not sketch.usable:
        return [outcome(case.at(count), chosen) for count in tokens], buckets
    starts = [bucket.lo for bucket in buckets]
    return [
        _moved(buckets[bisect_right(starts, count) - 1].choice, climb(case.behaviour.data.padding, count))
        if 1 <= count <= (upto or _FAR)
        else outcome(case.at(count), chosen)
        for count in tokens
    ], buckets


def _moved(choice: KernelChoice, padded: int) -> KernelChoice:
    """Return a choice without a table row at another token count of its range."""
    same = choice.padded_tokens == padded
    return choice if same else choice.model_copy(update={"padded_tokens": padded})


def _buckets(case: Case, chosen: TableSet | None, sketch: _Sketch, upto: int | None) -> list[TokenBucket]:
    found: list[TokenBucket] = []
    rule = ""
    drawn: Hashable | None = None
    held: object = None
    for point in _change_points(case):
        if upto is not None and point > upto:
            break
        if sketch.usable:
            before, drawn = drawn, sketch.at(point, rule)
            if drawn is not None and drawn == before:
                continue
        here = case.at(point)
        choice = outcome(here, chosen)
        if here.rule != rule:
            rule, drawn = here.rule, sketch.at(point, here.rule) if sketch.usable else None
        result = _outcome(choice)
        if found and held == result:
            continue
        if found:
            found[-1] = TokenBucket(found[-1].lo, point - 1, found[-1].choice)
        found.append(TokenBucket(point, None, choice))
        held = result
    return found
