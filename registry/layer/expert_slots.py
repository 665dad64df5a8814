"""Expert slots of a layer: what an engine makes of shared experts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import TABLE, FusionEntry, ModelEntry, Outcome, Scalar
from preshuffle.registry.layer.features import has_by_version
from preshuffle.registry.layer.switches import Switches
from preshuffle.registry.loading import Book, PreparedFusion
from preshuffle.registry.values.finding import Finding, FindingCode
from preshuffle.registry.values.query import Query

_QUERY_FACTS = (
    "model", "arch", "weight_dtype", "quant_type", "producer", "hidden_size", "intermediate_size", "num_experts",
    "top_k", "tp", "ep", "dp", "aiter",
)  # fmt: skip
_ASSUMED = {"dp": "1", "all_to_all": "none"}
"""What is taken for facts that are not given."""
_RANKS = frozenset({"tp", "ep", "dp"})
_FAULT_CODES: dict[str, FindingCode] = {"stops": "unsupported", "wrong": "known_bad"}


@dataclass(frozen=True, slots=True)
class SharedExperts:
    """Shared experts of one layer, as its model has them.

    Attributes:
        count: how many there are; 0 for none.
        model_type: the Hugging Face model type, where it is known.
        routed: number of routed experts; None where it is not known.
        weight_dtype: their dtype, where they are quantized otherwise than the routed experts.
        intermediate_size: the size of one, where it is another than a routed expert's.
    """

    count: int
    model_type: str | None = None
    routed: int | None = None
    weight_dtype: str | None = None
    intermediate_size: int | None = None

    @property
    def alike(self) -> bool:
        """Whether they have the routed experts' quantization and size."""
        return self.weight_dtype is None and self.intermediate_size is None


_NONE = SharedExperts(0)
_ONE = SharedExperts(1)
"""What is taken for a layer of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Expert slots of a layer, and the columns of ``topk_ids``.

    Attributes:
        outcome: whether shared experts run as experts of the layer, do so in a quantization of their own, or run
            apart; None where that is not known.
        num_experts: experts of the layer, each rank's slots for shared experts counted (``num_experts / ep`` is a
            rank's share); None where it is not known.
        top_k: experts of a token, shared ones counted; None where it is not known.
        masked_column: whether ``topk_ids`` has a column more where an expert mask is passed; None where that is not
            known.
        table: AITER's table of tuned kernels for such a layer.
        reason: why, for the answer's text; empty where there is nothing to say.
        findings: what is wrong with it.
        undecided: whether shared experts would take slots if AITER had what is not known of it.
    """

    outcome: Outcome | None
    num_experts: int | None
    top_k: int | None
    masked_column: bool | None
    table: str = TABLE
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    undecided: bool = False

    @property
    def unknown_table(self) -> str | None:
        """Say that kernels come from a table that is not read.

        None where they do not.
        """
        if self.table == TABLE:
            return None
        return f"kernels come from {self.table}, whose rows are not known here: {self.reason}"

    @property
    def may_fuse(self) -> bool:
        """Whether shared experts take slots of the layer, or may do so."""
        return self.fused or self.undecided

    @property
    def fused(self) -> bool:
        """Whether shared experts are known to take slots of the layer."""
        return self.outcome in ("fused", "heterogeneous")


def shared_experts_of(model: ModelEntry | None) -> SharedExperts | None:
    """Return the shared experts that a model's entry tells of.

    None where there is no entry, or it is not sure.
    """
    if model is None or "shared_experts" in model.unverified:
        return None
    return SharedExperts(
        model.shared_experts,
        model.model_type,
        model.num_experts,
        model.shared_weight_dtype,
        model.shared_intermediate_size,
    )


def expert_slots(
    query: Query,
    shared: SharedExperts | None,
    switches: Switches,
    book: Book,
    memo: Memo | None = None,
    *,
    given: bool,
    observed: frozenset[str] | None = None,
) -> Slots:
    """Count the expert slots of a layer, by the book's fusions.

    Every expert-parallel rank has slots of its own for shared experts: of ``E`` routed experts each rank then holds
    ``E / ep + shared``, which is the share of ``E + shared * ep`` experts.

    Args:
        query: with its model's facts; ``num_experts`` and ``top_k`` are the routed experts' unless they are given.
        shared: the layer's shared experts; None where nothing is known of them.
        switches: the query's switches, defaults included.
        book: whose fusions count.
        memo: stores what queries share.
        given: whether the query itself states ``num_experts`` or ``top_k``: then those are what the layer holds.
        observed: the fields that an observation states; from what it leaves out no fault is concluded.
    """
    index = book.fusion_index
    if query.engine is None or not index.names(query.engine.name):
        return Slots(None, query.num_experts, query.top_k, None)
    if shared is None and (kind := book.model_types.get(query.model)) and not kind.has_shared_experts:
        shared = _NONE
    if shared is not None and not shared.count:
        return Slots("apart", query.num_experts, query.top_k, masked_column=False)
    env = tuple(map(switches.facts.get, index.switches[query.engine.name]))
    fields = query.__dict__
    key = (
        *(query.engine, query.all_to_all, query.aiter_features, "dp" in query.model_fields_set),
        *(switches.sets.get("all_to_all"), shared, given, observed, env),
        *map(fields.__getitem__, _QUERY_FACTS),
    )
    return (memo or Memo()).get("expert slots", key, lambda: _slots(query, shared, switches, book, given, observed))


def _slots(
    query: Query,
    shared: SharedExperts | None,
    switches: Switches,
    book: Book,
    given: bool,
    observed: frozenset[str] | None,
) -> Slots:
    model_type = (shared or _ONE).model_type or (query.model if query.model in book.model_types else None)
    facts = _facts(query, shared or _ONE, switches, book) | {"model_type": model_type}
    candidates = book.fusion_index.candidates(query.engine.name if query.engine else "", model_type)
    holding = [fusion for fusion in candidates if fusion.holds(facts, switches.facts)]
    findings = tuple(_faults(holding, observed))
    with_outcome = [fusion for fusion in holding if fusion.entry.outcome is not None]
    usable = [fusion for fusion in with_outcome if _usable(book, query, fusion.entry)]
    if not usable:
        return Slots(None, query.num_experts, query.top_k, None, findings=findings)
    entry = usable[0].entry
    lacking = [fusion.entry for fusion in with_outcome if fusion not in usable]
    undecided = any(False not in _has(book, query, other) for other in lacking)
    if shared is None:  # the layer may have none
        return Slots(None, query.num_experts, query.top_k, None if entry.masked_column else False, findings=findings)
    if given:
        return replace(_as_given(query, shared, usable[0]), findings=findings, undecided=undecided)
    assumed = list(_assumed(query, switches, candidates, usable[0], facts))
    reason = _reason(query, shared, entry, assumed, lacking)
    experts, top_k = query.num_experts, query.top_k
    if entry.outcome != "apart" and experts is not None and top_k is not None:
        experts, top_k = _counted(experts, shared.count, query.ep, entry.per_rank), top_k + shared.count
    return Slots(entry.outcome, experts, top_k, entry.masked_column, entry.table, reason, findings, undecided)


def _facts(query: Query, shared: SharedExperts, switches: Switches, book: Book) -> dict[str, Scalar]:
    fields = query.__dict__
    facts: dict[str, Scalar] = {name: fields[name] for name in _QUERY_FACTS}
    version = query.engine.version if query.engine else None
    if version is None and query.engine is not None and query.engine.name in book.engines:
        version = book.engines[query.engine.name].newest
    facts["engine_version"] = version
    if shared.routed is not None:
        facts["num_experts"] = shared.routed
    facts["all_to_all"] = query.all_to_all or switches.sets.get("all_to_all") or "none"
    facts["shared_experts"] = shared.count
    facts["shared_alike"] = shared.alike
    facts["shared_weight_dtype"] = shared.weight_dtype or query.weight_dtype
    return facts


def _usable(book: Book, query: Query, entry: FusionEntry) -> bool:
    """Whether AITER is known to have the features that an entry needs."""
    return not entry.aiter_features or all(_has(book, query, entry))


def _has(book: Book, query: Query, entry: FusionEntry) -> list[bool | None]:
    """Return whether AITER has each feature that an entry needs."""
    found: list[bool | None] = []
    for name in entry.aiter_features:
        known = None if query.aiter is None else has_by_version(book.features[name], query.aiter)
        found.append(query.aiter_features.get(name, known))
    return found


def _counted(experts: int, shared: int, ep: int, per_rank: bool) -> int:
    if per_rank:
        return experts + shared * ep
    return -(-(experts + shared) // ep) * ep


def _as_given(query: Query, shared: SharedExperts, fusion: PreparedFusion) -> Slots:
    """Read from the numbers that the query gives whether shared experts are among them."""
    entry, experts, routed = fusion.entry, query.num_experts, shared.routed
    if experts is None or routed is None:
        masked = None if entry.masked_column else False
        return Slots(None, experts, query.top_k, masked)
    fused = entry.outcome != "apart" and experts == _counted(routed, shared.count, query.ep, entry.per_rank) != routed
    if not fused:
        would = f", although they could be: {entry.because}" if entry.outcome != "apart" else ""
        reason = f"of the {experts} experts that are given none is a shared one{would}"
        return Slots("apart", experts, query.top_k, masked_column=False, reason=reason)
    reason = f"of the {experts} experts that are given {experts - routed} are shared ones: {entry.because}"
    return Slots(entry.outcome, experts, query.top_k, entry.masked_column, entry.table, reason)


def _reason(
    query: Query, shared: SharedExperts, entry: FusionEntry, assumed: list[str], lacking: list[FusionEntry]
) -> str:
    one = shared.count == 1
    who = "1 shared expert" if one else f"{shared.count} shared experts"
    others = "the experts"
    if shared.weight_dtype is not None:
        who, others = f"{who} of {shared.weight_dtype}", f"the {query.weight_dtype} experts"
    if entry.outcome != "apart":
        what = f"{'counts' if one else 'count'} among {others}"
    else:
        what = f"{'stays' if one else 'stay'} apart{'' if shared.weight_dtype is None else f' from {others}'}"
    parts = [f"{who} {what}: {entry.because}"]
    parts += [f"{name} is not given and read as {_ASSUMED[name]}" for name in assumed]
    if entry.table != TABLE:
        parts.append(f"its kernels come from {entry.table}")
    if lacking:
        features = ", ".join(name for other in lacking for name in other.aiter_features)
        known = "AITER's version is not given" if query.aiter is None else f"AITER {query.aiter} lacks it"
        parts.append(f"it would be {lacking[0].outcome} with AITER's {features} ({known})")
    return "; ".join(parts)


def _assumed(
    query: Query,
    switches: Switches,
    candidates: tuple[PreparedFusion, ...],
    winner: PreparedFusion,
    facts: dict[str, Scalar],
) -> Iterator[str]:
    """Yield the facts that were not given and decided: for the entry that won, or against one more specific."""
    rivals = candidates[: candidates.index(winner)]
    told = {"dp": "dp" in query.model_fields_set, "all_to_all": query.all_to_all or "all_to_all" in switches.sets}
    for name in _ASSUMED:
        if told[name]:
            continue
        if name in winner.names or any(
            rival.entry.outcome is not None and rival.holds_without(name, facts, switches.facts) for rival in rivals
        ):
            yield name


def _faults(holding: Iterable[PreparedFusion], observed: frozenset[str] | None) -> Iterator[Finding]:
    for fusion in holding:
        entry = fusion.entry
        if entry.fault is None or (observed is not None and (_RANKS & fusion.names) - observed):
            continue
        code = _FAULT_CODES[entry.fault]
        yield Finding.of(code, entry.because, fix=entry.fix, evidence=entry.evidence)


def counted_fields(query: Query, slots: Slots) -> dict[str, int]:
    """Return a query's fields with the slots of shared experts counted."""
    if not slots.fused or slots.num_experts is None or slots.top_k is None:
        return {}
    if (slots.num_experts, slots.top_k) == (query.num_experts, query.top_k):
        return {}
    return {"num_experts": slots.num_experts, "top_k": slots.top_k}
