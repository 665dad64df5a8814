"""Comparison of a group of layers under two registries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from preshuffle.api.fleet import Group
from preshuffle.api.rollout.plan_values import KernelShift, PlanItem, Side, change_of
from preshuffle.api.store import differences
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import PreshuffleError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.layer import same_bytes
from preshuffle.registry.values.decision import Decision, TensorDecision
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report, Verdict

_CACHED_ITEMS: Final = 10_000
_BYTE_FIELDS: Final = frozenset(TensorDecision.model_fields) - {"layout", "is_shuffled"}


@dataclass
class GroupComparer:
    """Compares groups under two registries; equal observations are compared once."""

    before: Registry
    after: Registry
    aiter: str | None
    _items: Memo = field(default_factory=lambda: Memo(_CACHED_ITEMS))

    def compare(self, group: Group) -> tuple[Verdict, Verdict, PlanItem | None]:
        """Return both verdicts, and what changes; None where nothing does."""
        key = group.observation.model_dump_json(exclude_unset=True)
        return self._items.get("item", key, lambda: self._compare(group.observation))

    def _compare(self, observation: Observation) -> tuple[Verdict, Verdict, PlanItem | None]:
        expected = self._with_aiter(observation)
        before, after = _resolve(self.before, observation.query), _resolve(self.after, expected.query)
        old, new = self.before.check(observation), self.after.check(expected)
        kernels = tuple(_kernels(before, after))
        other_aiter = expected.query.aiter != observation.query.aiter
        item = PlanItem(
            where=(),
            model=observation.query.model,
            arch=self.after.book.arch_names.gfx(observation.query.arch),
            before=_side(before, old),
            after=_side(after, new),
            decision_changes=_digest(before) != _digest(after),
            bytes_change=_bytes_change(self.after, before, after),
            becomes=change_of(old.verdict, new.verdict),
            restart=_differs(before, after) is not False or (other_aiter and bool(kernels)),
            changes=tuple(differences(_digested_fields(before), _digested_fields(after))),
            kernels=kernels,
            new_findings=tuple(finding for finding in new.findings if finding not in old.findings),
        )
        same = (item.before.recipe, old.verdict) == (item.after.recipe, new.verdict)
        unchanged = same and not (item.decision_changes or item.kernels or item.new_findings)
        return old.verdict, new.verdict, None if unchanged else item

    def _with_aiter(self, observation: Observation) -> Observation:
        """Return the observation as it would be under the candidate's AITER version."""
        if self.aiter is None:
            return observation
        # probed features belong to the AITER that ran before
        fields = observation.query.model_dump(exclude_unset=True, exclude={"aiter_features"})
        query = Query.model_validate({**fields, "aiter": self.aiter})
        return observation.model_copy(update={"query": query})


def _resolve(registry: Registry, query: Query) -> Decision | str:
    """Return the decision, or why there is none."""
    try:
        return registry.resolve(query)
    except PreshuffleError as error:
        return str(error).splitlines()[0]


def _digest(outcome: Decision | str) -> str | None:
    return outcome.decision_digest if isinstance(outcome, Decision) else None


def _differs(before: Decision | str, after: Decision | str) -> bool | None:
    """Whether bytes, call or switches differ; None where one side is undecided."""
    digests = _digest(before), _digest(after)
    return None if None in digests else digests[0] != digests[1]


def _side(outcome: Decision | str, report: Report) -> Side:
    if isinstance(outcome, str):
        return Side(reason=outcome, verdict=report.verdict)
    return Side(
        recipe=outcome.recipe,
        rule=outcome.rule,
        reason=outcome.reason,
        decision_digest=outcome.decision_digest,
        verdict=report.verdict,
    )


def _digested_fields(outcome: Decision | str) -> dict[str, Any]:
    """Return the fields that the decision digest covers; none without a decision."""
    if isinstance(outcome, str):
        return {}
    return outcome.model_dump(mode="json", include={"recipe", "tensors", "call", "env"})


def _bytes_change(registry: Registry, before: Decision | str, after: Decision | str) -> bool | None:
    """Whether any tensor's bytes change, whatever its layouts are called."""
    if isinstance(before, str) or isinstance(after, str):
        return None
    if before.tensors.keys() != after.tensors.keys():
        return True
    for role, old in before.tensors.items():
        new = after.tensors[role]
        if any(getattr(old, name) != getattr(new, name) for name in _BYTE_FIELDS):
            return True
        known = {old.layout, new.layout} <= registry.book.known_layouts
        if not (known and same_bytes(registry.book, old.layout, new.layout, new.physical_shape)):
            return True
    return False


def _kernels(before: Decision | str, after: Decision | str) -> Iterator[KernelShift]:
    if isinstance(before, str) or isinstance(after, str):
        return
    old: Mapping[int, str] = {bucket.tokens: _describe_kernels(bucket) for bucket in before.kernels}
    for bucket in after.kernels:
        new = _describe_kernels(bucket)
        if old.get(bucket.tokens, new) != new:
            yield KernelShift(tokens=bucket.tokens, before=old[bucket.tokens], after=new)


def _describe_kernels(bucket: Any) -> str:
    """Describe both stages and the activation dtype, or AITER's error."""
    if bucket.error:
        return f"raises {bucket.error}"
    stages = [stage.kernel or stage.func for stage in (bucket.stage1, bucket.stage2) if stage is not None]
    tuned = {True: ", tuned", False: ", untuned", None: ""}[bucket.tuned]
    return f"{' then '.join(stages)} on {bucket.activation_dtype}{tuned}"
