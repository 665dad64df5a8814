"""What others found out the hard way, told with the decision already: the deny-list, and an AITER that is too old.

The entries are those that ``check`` uses, on the facts of a deployment that does what the decision says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from preshuffle.registry.base.words import GROUP, Role
from preshuffle.registry.entries import Scalar
from preshuffle.registry.kernels import dispatch_book, is_newest
from preshuffle.registry.layer import value_of
from preshuffle.registry.resolve.findings import where
from preshuffle.registry.resolve.kernels import DISPATCHED
from preshuffle.registry.values.decision import CallDecision, TensorDecision
from preshuffle.registry.values.finding import Finding

if TYPE_CHECKING:
    from preshuffle.registry.entries import ContractEntry, Facts, KnownBadEntry
    from preshuffle.registry.kernels import TokenBucket
    from preshuffle.registry.loading import Book, Compiled, Entries
    from preshuffle.registry.values.query import Query

_EFFECTS = {"wrong": "gives wrong results", "crash": "crashes", "slow": "is slow"}
_LAYOUTS: tuple[tuple[str, Role], ...] = (
    ("w13_layout", "w13_weight"),
    ("w2_layout", "w2_weight"),
    ("w13_scale_layout", "w13_weight_scale"),
    ("w2_scale_layout", "w2_weight_scale"),
    ("w13_bias_layout", "w13_bias"),
)
_ASKED = (
    "model", "arch", "quant_type", "activation", "activation_dtype", "gate_up_order", "producer", "gated", "bias",
    "cu_num", "hidden_size", "intermediate_size", "top_k", "tp", "ep", "aiter", "rocm", "deployment",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lists:
    """The book's deny-list, and its contracts on versions that are too old, indexed."""

    known_bad: Entries
    too_old: Entries


def lists_of(book: Book) -> Lists:
    """Return a book's lists, made once."""
    return book.remember("lists", None, lambda: _lists(book))


def _lists(book: Book) -> Lists:
    from preshuffle.registry.loading import Entries  # needs the book

    contracts: Mapping[str, ContractEntry] = book.entries["contracts"]
    old = [entry for entry in contracts.values() if entry.code == "version_unsupported"]
    return Lists(Entries(book.entries["known_bad"].values()), Entries(old))


def listed_findings(
    asked: Query,
    query: Query,
    book: Book,
    env: Mapping[str, str],
    tensors: Mapping[Role, TensorDecision],
    call: CallDecision,
    ranges: Sequence[TokenBucket],
) -> Iterator[Finding]:
    """Say which entries hold for the kernels that will run.

    Args:
        asked: the query as it was asked, with the model as its user names it.
        query: the query with the facts of the model's entry filled in.
        env: what the recipe sets.
        ranges: the kernels at every token count; none where they cannot be predicted (the number of CUs is unknown).
    """
    if call.function != DISPATCHED:
        return
    whole = _whole(asked, query, book, env, tensors)
    lists = lists_of(book)
    shared = _of_call(tensors, call)
    old = [item for item in lists.too_old.may_hold(whole) if _may_run(item, shared)]
    bad = [item for item in lists.known_bad.may_hold(whole) if _may_run(item, shared)]
    if not old and not bad:
        return
    runs = [(bucket, {**shared, **_of_kernel(bucket)}) for bucket in ranges]
    for item in old:
        if place := _place(item, runs, shared, whole):
            entry = item.entry
            yield Finding.of(
                entry.code, f"{entry.says} ({place})", role=entry.role, fix=entry.fix, evidence=entry.evidence
            )
    for item in bad:
        if place := _place(item, runs, shared, whole):
            yield listed_finding(item.entry, f" ({place})")


def _place(item: Compiled, runs: Sequence[tuple[TokenBucket, Facts]], shared: Facts, whole: Facts) -> str:
    """Say where an entry holds: a kernel and its token counts; empty where it does not."""
    if not runs:
        return "at every token count" if item.holds(shared, whole) else ""
    hits = [bucket for bucket, facts in runs if item.holds(facts, whole)]
    stage = hits[0].choice.stage1 if hits else None
    return " ".join(filter(None, (stage.func if stage else "", where(hits)))) if hits else ""


def listed_finding(entry: KnownBadEntry, place: str) -> Finding:
    """Return the finding for an entry of the deny-list; what is only slow is a warning."""
    finding = Finding.of(
        "known_bad",
        f"{entry.says}: it {_EFFECTS[entry.effect]}{place}",
        actual=entry.id,
        fix=entry.workaround,
        evidence=entry.evidence,
    )
    return finding.model_copy(update={"severity": "warning"}) if entry.effect == "slow" else finding


def _whole(
    asked: Query, query: Query, book: Book, env: Mapping[str, str], tensors: Mapping[Role, TensorDecision]
) -> dict[str, Scalar]:
    """The facts of the deployment."""
    given: dict[str, Any] = query.__dict__
    facts: dict[str, Scalar] = {name: given[name] for name in _ASKED}
    if query.aiter is not None and is_newest(query.aiter):
        facts["aiter"] = dispatch_book().newest
    if query.model != asked.model:
        facts["model_name"] = asked.model
    facts["engine"] = query.engine.name if query.engine else None
    facts["engine_version"] = query.engine.version if query.engine else None
    arch = book.archs[query.arch]
    facts["arch_mx"] = any(name.startswith("mxfp4") for name in arch.features)
    w13, w2 = tensors["w13_weight"], tensors["w2_weight"]
    facts["weight_dtype"] = "fp8" if w13.dtype.startswith("fp8") else w13.dtype
    facts["w13_tag"], facts["w2_tag"] = w13.is_shuffled, w2.is_shuffled
    facts |= {name: tensors[role].layout for name, role in _LAYOUTS if role in tensors}
    facts["experts"], facts["model_dim"], facts["inter_dim"] = w2.physical_shape
    group = GROUP.get(query.quant_type or "No", 1)
    facts["w2_groups"] = -(-w2.physical_shape[2] // group) if group > 1 else None
    for name, value in {**env, **query.env}.items():
        flag = book.flags.get(name)
        facts[f"env.{name}"] = value_of(flag, value) if flag else value
    return facts


def _may_run(item: Compiled, shared: Facts) -> bool:
    """Whether an entry's conditions on the call hold; those on its kernels are judged for each of them."""
    return all(condition.holds(shared) for condition in item.run if condition.fact in shared)


def _of_call(tensors: Mapping[Role, TensorDecision], call: CallDecision) -> dict[str, Scalar]:
    """The facts that every kernel of the call shares."""
    w2 = tensors["w2_weight"]
    return {
        "reader": "aiter",
        "predicted": True,
        "observed": False,
        "gate_mode": call.gate_mode if call.gate_mode_passed else "separated",
        "is_shuffled": tensors["w13_weight"].is_shuffled or w2.is_shuffled,
        "bias_passed": call.bias,
        "model_dim": w2.physical_shape[1],
        "inter_dim": w2.physical_shape[2],
    }


def _of_kernel(bucket: TokenBucket) -> dict[str, Scalar]:
    """The facts of one kernel, over its range of token counts."""
    choice = bucket.choice
    one, two = choice.stage1, choice.stage2
    return {
        "tokens": bucket.lo,
        "func1": one.func if one else None,
        "family1": one.family or None if one else None,
        "family2": two.family or None if two else None,
        "kernel1": one.kernel or None if one else None,
        "kernel2": two.kernel or None if two else None,
        "runs_in": choice.activation_dtype,
        "one_stage": choice.run_1stage,
        "tuned": choice.tuned,
    }
