"""Known problems of a decision: deny-list entries and old versions.

The entries are those that ``check`` uses, on the facts of a deployment that does what the decision says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preshuffle.registry.base.words import GROUP, Role
from preshuffle.registry.entries import LAYOUT_FACTS, ContractEntry, Facts, KnownBadEntry, Scalar, moe_shape
from preshuffle.registry.kernels import TokenBucket, dispatch_book, is_newest
from preshuffle.registry.layer import value_of
from preshuffle.registry.loading import Book, Compiled, Entries
from preshuffle.registry.resolve.case import Case
from preshuffle.registry.resolve.findings import where
from preshuffle.registry.resolve.kernels import is_predicted
from preshuffle.registry.values.decision import CallDecision, TensorDecision
from preshuffle.registry.values.finding import Finding

_EFFECTS = {"wrong": "gives wrong results", "crash": "crashes", "slow": "is slow"}
_QUERY_FACTS = (
    "model", "arch", "quant_type", "activation", "activation_dtype", "gate_up_order", "producer", "gated", "bias",
    "router_weight_on_input", "cu_num", "hidden_size", "intermediate_size", "top_k", "tp", "ep", "aiter", "rocm",
    "deployment",
)  # fmt: skip


class KnownProblems:
    """Index of a book's deny-list and of its contracts on versions."""

    def __init__(self, book: Book) -> None:
        """Index the entries by the facts that they need."""
        contracts: Mapping[str, ContractEntry] = book.entries["contracts"]
        self._book = book
        self._too_old = Entries(entry for entry in contracts.values() if entry.code == "version_unsupported")
        self._known_bad = Entries(book.entries["known_bad"].values())

    def findings(
        self,
        case: Case,
        env: Mapping[str, str],
        tensors: Mapping[Role, TensorDecision],
        call: CallDecision,
        ranges: Sequence[TokenBucket],
    ) -> Iterator[Finding]:
        """Yield a finding for each entry that holds.

        Args:
            case: the query with everything that the book adds to it.
            env: what the recipe sets.
            tensors: how the tensors lie.
            call: the call that goes with them.
            ranges: the kernels at every token count; none where the number of compute units is unknown.
        """
        if not is_predicted(call.function):
            return
        deployment = _deployment_facts(case, self._book, env, tensors)
        shared = _call_facts(tensors, call)
        too_old = [item for item in self._too_old.may_hold(deployment) if _may_run(item, shared)]
        known_bad = [item for item in self._known_bad.may_hold(deployment) if _may_run(item, shared)]
        if not too_old and not known_bad:
            return
        runs = [(bucket, {**shared, **_kernel_facts(bucket)}) for bucket in ranges]
        for item in too_old:
            if place := _place(item, runs, shared, deployment):
                entry = item.entry
                yield Finding.of(
                    entry.code, f"{entry.says} ({place})", role=entry.role, fix=entry.fix, evidence=entry.evidence
                )
        for item in known_bad:
            if place := _place(item, runs, shared, deployment):
                yield known_problem_finding(item.entry, f" ({place})")


def _place(item: Compiled, runs: Sequence[tuple[TokenBucket, Facts]], shared: Facts, deployment: Facts) -> str:
    """Name where an entry holds; empty where it does not."""
    if not runs:
        return "at every token count" if item.holds(shared, deployment) else ""
    hits = [bucket for bucket, facts in runs if item.holds(facts, deployment)]
    stage = hits[0].choice.stage1 if hits else None
    return " ".join(filter(None, (stage.func if stage else "", where(hits)))) if hits else ""


def known_problem_finding(entry: KnownBadEntry, place: str) -> Finding:
    """Return the finding for a deny-list entry.

    What is only slow is a warning.
    """
    finding = Finding.of(
        "known_bad",
        f"{entry.says}: it {_EFFECTS[entry.effect]}{place}",
        actual=entry.id,
        fix=entry.workaround,
        evidence=entry.evidence,
    )
    return finding.model_copy(update={"severity": "warning"}) if entry.effect == "slow" else finding


def _deployment_facts(
    case: Case, book: Book, env: Mapping[str, str], tensors: Mapping[Role, TensorDecision]
) -> dict[str, Scalar]:
    query = case.full
    values: dict[str, Any] = query.__dict__
    facts: dict[str, Scalar] = {name: values[name] for name in _QUERY_FACTS}
    if query.aiter is not None and is_newest(query.aiter):
        facts["aiter"] = dispatch_book().newest
    if query.model != case.query.model:
        facts["model_name"] = case.query.model
    facts["engine"] = query.engine.name if query.engine else None
    facts["engine_version"] = query.engine.version if query.engine else None
    facts["arch_mx"] = any(name.startswith("mxfp4") for name in case.arch.features)
    w13, w2 = tensors["w13_weight"], tensors["w2_weight"]
    facts["weight_dtype"] = "fp8" if w13.dtype.startswith("fp8") else w13.dtype
    facts["w13_tag"], facts["w2_tag"] = w13.is_shuffled, w2.is_shuffled
    facts |= {name: tensors[role].layout for name, role in LAYOUT_FACTS if role in tensors}
    facts["experts"], facts["model_dim"], facts["inter_dim"] = w2.physical_shape
    facts["moe_shape"] = moe_shape(w2.physical_shape[0], w2.physical_shape[1], query.top_k)
    group = GROUP.get(query.quant_type or "No", 1)
    facts["w2_groups"] = -(-w2.physical_shape[2] // group) if group > 1 else None
    for name, value in {**env, **query.env}.items():
        flag = book.flags.get(name)
        facts[f"env.{name}"] = value_of(flag, value) if flag else value
    return facts


def _may_run(item: Compiled, shared: Facts) -> bool:
    """Return whether an entry's conditions on the call hold.

    Those on kernels are judged for each kernel.
    """
    return all(condition.holds(shared) for condition in item.run if condition.fact in shared)


def _call_facts(tensors: Mapping[Role, TensorDecision], call: CallDecision) -> dict[str, Scalar]:
    """Return the facts that all kernels of a call share."""
    w2 = tensors["w2_weight"]
    return {
        "reader": "aiter",
        "predicted": True,
        "observed": False,
        "gate_mode": call.gate_mode if call.gate_mode_passed else "separated",
        "is_shuffled": tensors["w13_weight"].is_shuffled or w2.is_shuffled,
        "bias_passed": call.bias,
        "doweight_stage1": call.doweight_stage1,
        "model_dim": w2.physical_shape[1],
        "inter_dim": w2.physical_shape[2],
    }


def _kernel_facts(bucket: TokenBucket) -> dict[str, Scalar]:
    """Return the facts of one kernel over its token range."""
    choice = bucket.choice
    first, second = choice.stage1, choice.stage2
    return {
        "tokens": bucket.lo,
        "func1": first.func if first else None,
        "family1": first.family or None if first else None,
        "family2": second.family or None if second else None,
        "kernel1": first.kernel or None if first else None,
        "kernel2": second.kernel or None if second else None,
        "runs_in": choice.activation_dtype,
        "one_stage": choice.run_1stage,
        "tuned": choice.tuned,
    }
