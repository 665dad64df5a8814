"""Trace of one dispatch: every step with its deciding row or rule."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour
from preshuffle.registry.kernels.aiter_versions.dispatch_book import ActivationRule, Tier
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice
from preshuffle.registry.kernels.dispatch.activation import activation_rule
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.dispatch.dispatch import GROUPED, decide
from preshuffle.registry.kernels.dispatch.grouped import grouped_key
from preshuffle.registry.kernels.dispatch.lookup import lookup_key
from preshuffle.registry.kernels.dispatch.stages import RULE_TEXTS, RULES
from preshuffle.registry.kernels.families.families import Families
from preshuffle.registry.kernels.families.family import Family
from preshuffle.registry.kernels.tables.rows import Row
from preshuffle.registry.kernels.tables.tables import KernelTables, TableSet

CONSIDERED = 6
"""Rows that did not match and are shown, the nearest first."""
_ACT_TYPE = {
    "exact": "a row answers for its own activation only",
    "exact_then_any": "a row of the activation itself, else the first row of any activation",
    "any": "the activation never matches: the first row of any activation answers",
}
_FEATURES = {
    "gate_mode": "has gate_mode",
    "is_shuffled": "looks at is_shuffled",
    "grouped": "has the grouped gfx1250 path",
    "opus": "has Opus kernels",
}

Plain = int | str | bool


class ConsideredRow(Frozen):
    """A table row near the key, and how it differs."""

    source: str
    differs: FrozenDict[str, str] = Field(description="key column to the row's own value")
    kernel1: str
    why_not: str = ""


class StageTrace(Frozen):
    """What is known of the kernel of one stage.

    Attributes:
        encodes: what its name says, by group of the family's grammar.
        drops: arguments of this very call that the family ignores without a word.
    """

    stage: Literal[1, 2]
    func: str
    kernel: str
    family: str | None
    encodes: FrozenDict[str, str]
    reads: FrozenDict[str, str]
    row_order: str = ""
    activation: str = ""
    ignores: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


class Trace(Frozen):
    """One dispatch, step by step.

    Attributes:
        behaviour: the version whose known behaviour was applied, and what is particular to it.
        activation: what fixed the activation dtype.
        padding: how the token count was padded.
        key: what was looked up, by the tables' columns.
        lookup: what became of the lookup.
        considered: rows near the key, the row found among them.
        rule: the rule that bound the stages, and in ``passed`` those before it that did not take the call.
    """

    call: DispatchCall
    behaviour: FrozenDict[str, str]
    activation: str
    padding: str
    key: FrozenDict[str, Plain]
    lookup: str
    considered: tuple[ConsideredRow, ...]
    rule: str
    because: str
    passed: tuple[str, ...]
    stages: tuple[StageTrace, ...]
    choice: KernelChoice


def trace(call: DispatchCall, tables: KernelTables | None = None, families: Families | None = None) -> Trace:
    """Explain ``dispatch(call, tables, families)``.

    Example:
        >>> call = DispatchCall(gfx="gfx950", cu_num=256, tokens=16, model_dim=3072, inter_dim=3072, expert=128, topk=4,
        ...                     activation="Swiglu", weight_dtype="fp4x2", quant_type="per_1x32")
        >>> trace(call).rule
        'cktile_split_k'
    """
    choice, case, chosen = decide(call, tables, families)
    behaviour = case.behaviour
    key = dict(_key(case)) if case.activation_dtype else {}
    order = [name for name in behaviour.data.stage_rules if name in RULES]
    return Trace(
        call=call,
        behaviour=_behaviour(behaviour),
        activation=_activation(case),
        padding=_padding(behaviour.data.padding, call.tokens, case.token),
        key=key,
        lookup=_lookup(case, chosen, choice),
        considered=tuple(_considered(case, chosen, key)) if chosen is not None and key and case.rule != GROUPED else (),
        rule=case.rule or "none",
        because=_because(case, choice),
        passed=tuple(order[: order.index(case.rule)]) if case.rule in order else (),
        stages=tuple(_stages(choice, case)),
        choice=choice,
    )


def says(rule: str) -> str:
    """Return a sentence that describes a stage rule to users."""
    if rule == GROUPED:
        return "AITER sends the call to the grouped gfx1250 kernels before any table of the 2-stage path is read."
    return RULE_TEXTS.get(rule, "")


def _behaviour(behaviour: Behaviour) -> dict[str, str]:
    data = behaviour.data
    shared = "the key has no gfx: GPUs with as many compute units share rows"
    features = "; ".join(text for name, text in _FEATURES.items() if name in data.features)
    return {
        "version": behaviour.key,
        "act_type": _ACT_TYPE[data.act_type],
        "key": "gfx is part of the key" if data.key_has_gfx else shared,
        "features": features or "none of the later ones",
    }


def _activation(case: DispatchCase) -> str:
    if not case.activation_dtype:
        return "AITER raises before it is decided"
    rule = activation_rule(case)
    if rule is None:
        return f"{case.activation_dtype}: no rule of this version changes it, it is the weights' own"
    return f"{case.activation_dtype}: {_when(rule)}{_bound(rule, case)}"


def _when(rule: ActivationRule) -> str:
    parts = []
    for name, allowed in rule.when.items():
        if name == "env":
            parts += [f"{variable} is {' or '.join(repr(v) for v in values)}" for variable, values in allowed.items()]
        else:
            parts.append(f"{name} {' or '.join(allowed)}")
    return ", ".join(parts) or "always"


def _bound(rule: ActivationRule, case: DispatchCase) -> str:
    if rule.bound is None:
        return f" gives {rule.dtype}"
    bound = case.env.get(rule.bound, str(case.behaviour.data.activation_bounds[rule.bound]))
    where = f"{case.call.tokens} tokens, as they are before padding"
    return f" gives {rule.below} below {rule.bound}={bound} tokens, else {rule.dtype}; here {where}"


def _padding(tiers: tuple[Tier, ...], tokens: int, padded: int) -> str:
    for tier in tiers:
        if tier.below is None or tokens < tier.below:
            place = "all others" if tier.below is None else f"below {tier.below}"
            to = "the next power of two" if tier.to == "pow2" else str(tier.to)
            return f"{tokens} tokens count as {padded} ({place}: {to})"
    return f"{tokens} tokens count as {padded}"


def _key(case: DispatchCase) -> Iterator[tuple[str, Plain]]:
    if case.rule == GROUPED:
        yield from grouped_key(case).items()
        return
    for name, value in lookup_key(case).items():
        yield name, int(value) if isinstance(value, bool) else value


def _lookup(case: DispatchCase, chosen: TableSet | None, choice: KernelChoice) -> str:
    if chosen is None:
        return "no tables: what AITER does for a shape without a row"
    row = case.row
    if case.rule == GROUPED:
        return f"grouped table: {choice.source or 'no row, AITER takes its default tile'}"
    if row is None:
        return (
            f"no row among {len(chosen.rows)} has this key" if case.activation_dtype else "AITER raises before it looks"
        )
    why = "" if case.tuned else ", but it is not used (see the notes)"
    differs = _differs(row, lookup_key(case))
    other = ", ".join(f"its {name} is {value}" for name, value in differs.items())
    return f"{row.source}{f' ({other})' if other else ''}{why}"


def _differs(row: Row, key: dict[str, Any]) -> dict[str, str]:
    return {name: str(getattr(row, name)) for name, value in key.items() if getattr(row, name) != value}


def _considered(case: DispatchCase, chosen: TableSet, key: dict[str, Plain]) -> Iterator[ConsideredRow]:
    """Yield the row found and the nearest others.

    Few differences come first, then near token counts.
    """
    token = case.token

    def rank(item: tuple[dict[str, str], Row]) -> tuple[bool, int, int]:
        return item[1] is not case.row, len(item[0]), abs(item[1].token - token)

    shape = ("model_dim", "inter_dim", "expert")
    rows = [row for row in chosen.rows if sum(getattr(row, name) == key[name] for name in shape) >= 2]
    for differs, row in sorted(((_differs(row, key), row) for row in rows), key=rank)[:CONSIDERED]:
        why_not = _why_not(case, row, differs)
        yield ConsideredRow(source=row.source, differs=differs, kernel1=row.kernel1, why_not=why_not)


def _why_not(case: DispatchCase, row: Row, differs: dict[str, str]) -> str:
    if row is case.row:
        return ""
    if row.tag in case.behaviour.data.dropped_tags:
        return f"tagged {row.tag}: dropped when the tables are read"
    if set(differs) <= {"act_type"} and case.row is not None:
        return f"{case.row.source} comes first or is faster"
    return ", ".join(f"{name} {value}" for name, value in differs.items())


def _because(case: DispatchCase, choice: KernelChoice) -> str:
    if not case.rule:
        return choice.error or "AITER raises before a rule is reached"
    text = says(case.rule)
    if case.tuned or case.rule == GROUPED:
        return text
    sizes = "one stage" if case.run_1stage else f"two stages, block_m {case.block_m}, ksplit {case.ksplit}"
    return f"{text} AITER's heuristic for a shape without a row: {sizes}."


def _stages(choice: KernelChoice, case: DispatchCase) -> Iterator[StageTrace]:
    families, call = case.families, case.call
    for number, stage in ((1, choice.stage1), (2, choice.stage2)):
        if stage is None:
            continue
        family = families.by_id.get(stage.family or "")
        parsed = families.parse_name(stage.kernel)
        yield StageTrace(
            stage=1 if number == 1 else 2,
            func=stage.func,
            kernel=stage.kernel,
            family=stage.family,
            encodes={name: text for name, text in (parsed[1] if parsed else {}).items() if text},
            reads=stage.reads,
            row_order=family.row_order if family else "",
            activation=family.activation if family else "",
            ignores=family.ignores if family else (),
            drops=tuple(_drops(family, call)) if family else (),
            evidence=family.evidence if family else (),
        )


def _drops(family: Family, call: DispatchCall) -> Iterator[str]:
    """Yield the call's arguments that the kernel ignores.

    ``gate_mode`` is judged by what is read.
    """
    for name in family.ignores:
        value = getattr(call, name, None)
        if name == "gate_mode":
            continue
        if name == "is_shuffled":
            if value is False:
                yield "is_shuffled=False"
        elif name == "activation":
            if value != "Silu":
                yield f"activation={value}"
        elif value:
            yield f"{name}={value}" if not isinstance(value, bool) else name
