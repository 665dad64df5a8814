"""The token counts at which AITER's choice changes: a decision has to hold at every one of them, not at samples."""

from dataclasses import dataclass
from operator import attrgetter

from preshuffle.registry.kernels.activation import activation_rule
from preshuffle.registry.kernels.behaviour import behaviour_of
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice
from preshuffle.registry.kernels.dispatch import dispatch
from preshuffle.registry.kernels.errors import DispatchError, env_int
from preshuffle.registry.kernels.padding import boundaries
from preshuffle.registry.kernels.tables import KernelTables

# Apart from the padded count itself, what may differ while the same kernels run in the same way.
_UNDECIDED = frozenset({"padded_tokens", "source", "notes"})
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


def _change_points(call: DispatchCall) -> list[int]:
    behaviour = behaviour_of(call.aiter)
    data = behaviour.data
    highest = max([tier.below or 1 for tier in data.padding])
    points = {1, *boundaries(data.padding, highest)}
    env = {name: value for name, value in call.env.items() if name in behaviour.env}
    gfx = [arch for arch in call.env.get("GPU_ARCHS", "").split(";") if arch and arch != "native"] or [call.gfx]
    rule = activation_rule(behaviour, call, env, gfx[-1].strip())
    if rule is not None and rule.bound is not None:
        try:
            points.add(env_int(env, rule.bound, data.activation_bounds[rule.bound]))
        except DispatchError:
            pass
    return sorted(point for point in points if point >= 1)


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
    found: list[TokenBucket] = []
    held: object = None
    for point in _change_points(call):
        if upto is not None and point > upto:
            break
        choice = dispatch(call.model_copy(update={"tokens": point}), tables)
        outcome = _outcome(choice)
        if found and held == outcome:
            continue
        if found:
            found[-1] = TokenBucket(found[-1].lo, point - 1, found[-1].choice)
        found.append(TokenBucket(point, None, choice))
        held = outcome
    return found
