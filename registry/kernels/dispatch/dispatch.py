"""AITER's fused-MoE dispatch: the kernels that a call gets."""

from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour, behaviour_of
from preshuffle.registry.kernels.aiter_versions.dispatch_book import ActivationRule
from preshuffle.registry.kernels.aiter_versions.padding import tier_value
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice
from preshuffle.registry.kernels.dispatch.activation import QUANT_REMAP, activation_dtype, activation_rule
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.dispatch.grouped import grouped_key, grouped_plan, is_grouped
from preshuffle.registry.kernels.dispatch.heuristics import untuned
from preshuffle.registry.kernels.dispatch.lookup import lacks_flydsl, lookup
from preshuffle.registry.kernels.dispatch.opus import check_bypassed, objection
from preshuffle.registry.kernels.dispatch.stage_plan import Plan
from preshuffle.registry.kernels.dispatch.stages import plan_stages
from preshuffle.registry.kernels.errors import DispatchError, env_int
from preshuffle.registry.kernels.families.families import Families, RuntimeFacts, packaged_families
from preshuffle.registry.kernels.tables.index import ACT_TYPES
from preshuffle.registry.kernels.tables.rows import Row
from preshuffle.registry.kernels.tables.tables import KernelTables, TableSet

_NO_TABLES = "no kernel tables given: the lookup cannot be done, this is AITER's choice if it has no row"
_NO_TABLES_FOR = "no kernel tables for this AITER version: the lookup cannot be done"
GROUPED = "grouped"
_MX_PORT_ARCHS = ("gfx942", "gfx950")
# Read by AITER and by its build of every version, besides what the book lists by version.
_ALWAYS_READ = frozenset({"GPU_ARCHS", "CU_NUM", "TARGET_ARCH", "AITER_GPU_ARCHS"})


def _read_env(behaviour: Behaviour, call: DispatchCall, notes: list[str]) -> dict[str, str]:
    env = {}
    for name, value in call.env.items():
        if name in behaviour.env or name in _ALWAYS_READ:
            env[name] = value
        elif name.startswith(("AITER_", "GPTOSS_")):
            notes.append(f"{name} is not known to be read for the kernel choice by this AITER version")
    for name in ("AITER_CONFIG_FMOE", "AITER_CONFIG_GROUPED_FMOE"):
        if name in call.env:
            notes.append(f"{name} replaces AITER's whole table set: the tables given here must be those files")
    if env.get("AITER_ONLINE_TUNE", "0") == "1":
        notes.append("AITER_ONLINE_TUNE=1: AITER tunes a shape without a row before it answers")
    return env


def _case(call: DispatchCall, families: Families, behaviour: Behaviour, notes: list[str]) -> DispatchCase:
    env = _read_env(behaviour, call, notes) if call.env else call.env
    data = behaviour.data
    archs = [arch for arch in env.get("GPU_ARCHS", "").split(";") if arch and arch != "native"]
    return DispatchCase(
        call=call,
        families=families,
        behaviour=behaviour,
        env=env,
        gfx=archs[-1].strip() if archs else call.gfx,
        cu_num=call.cu_num,
        tokens=call.tokens,
        token=tier_value(data.padding, call.tokens),
        topk=call.topk - 1 if call.ep and data.ep_strips_topk else call.topk,
        quant_type=QUANT_REMAP.get(call.quant_type, call.quant_type),
        activation_dtype="",
        notes=notes,
    )


def check_call(case: DispatchCase) -> None:
    """Check the arguments alone; settle the number of compute units.

    Raises:
        DispatchError: What AITER raises for them.
    """
    call = case.call
    if call.dtype not in ("bf16", "fp16"):
        raise DispatchError("AssertionError", f"fused_moe gives bf16 or fp16, not {call.dtype}")
    if "gate_mode" not in case.behaviour.data.features and call.gate_mode != "separated":
        case.notes.append("this AITER version has no gate_mode; it is ignored here, passing it is a TypeError")
    if call.activation == "Situv2" and "situv2" not in case.behaviour.data.features:
        raise DispatchError("AttributeError", "Situv2: this AITER version has no such activation")
    cu_num = env_int(case.env, "CU_NUM", 0)
    case.cu_num = cu_num if cu_num > 0 else case.cu_num


def _check_situv2(case: DispatchCase) -> None:
    call = case.call
    if call.activation != "Situv2" or case.activation_dtype != "bf16" or call.weight_dtype != "fp4x2":
        return
    if case.quant_type != "per_1x32" or "situv2_a16w4_raises" not in case.behaviour.data.features:
        return
    objections = (
        (case.gfx not in _MX_PORT_ARCHS or not call.flydsl, "FlyDSL on gfx942 or gfx950"),
        (call.bias, "no bias"),
        (call.ep, "no expert mask"),
        (not call.is_shuffled or not call.use_g1u1, "preshuffled gate and up weights"),
        (call.doweight_stage1, "doweight_stage1=False"),
    )
    for missing, needed in objections:
        if missing:
            raise DispatchError("NotImplementedError", f"SiTUv2 with bf16 activations and MXFP4 weights needs {needed}")


def _use_row(case: DispatchCase, row: Row) -> None:
    data = case.behaviour.data
    ignore = "ksplit_env_ignores_row" in data.features and env_int(case.env, "AITER_KSPLIT", 0) == -1
    case.tuned = True
    case.block_m, case.ksplit = row.block_m, 0 if ignore else row.ksplit
    case.kernel1, case.kernel2 = row.kernel1, row.kernel2
    case.run_1stage, case.flat = row.run_1stage, row.run_1stage and row.flat
    if row.act_type != ACT_TYPES[case.call.activation]:
        case.notes.append(f"the row is for {row.act_type}: AITER ignored the activation")
    if not case.call.is_shuffled and not row.run_1stage and "is_shuffled" in data.features:
        case.notes.append("tuned for preshuffled weights, is_shuffled is not set: AITER warns and runs it all the same")


def _bypasses(case: DispatchCase) -> bool:
    return "bypass_tuned" in case.behaviour.data.features and bool(env_int(case.env, "AITER_BYPASS_TUNE_CONFIG", 0))


def _settle(case: DispatchCase) -> None:
    row = case.row
    if row is not None:
        reason = "FlyDSL is missing" if lacks_flydsl(case, row) else objection(case, row)
        if reason is not None:
            case.notes.append(f"row {row.source} is discarded: {reason}")
            row = None
    bypassed = row is not None and _bypasses(case)
    if row is not None and not bypassed:
        _use_row(case, row)
        return
    case.run_1stage, case.block_m, case.ksplit = untuned(case)
    if row is not None:
        case.notes.append(f"row {row.source} is bypassed by AITER_BYPASS_TUNE_CONFIG")
        check_bypassed(case, row)


def _note_late_assertion(case: DispatchCase, plan: Plan) -> None:
    if plan.run_1stage and case.call.doweight_stage1 and case.behaviour.data.one_stage_needs_no_doweight:
        case.notes.append("after sorting the tokens AITER raises AssertionError: no doweight_stage1 in one stage")


def _objection(case: DispatchCase, plan: Plan) -> str | None:
    if case.flat and plan.run_1stage and case.gfx not in case.behaviour.data.flat_archs:
        return f"AssertionError: flat 1-stage kernels do not exist for {case.gfx}"
    if plan.output_aux and case.call.ep:
        return "NotImplementedError: the a4w4 FlyDSL port (mxmoe) knows no expert mask"
    return None


def _choice(case: DispatchCase, plan: Plan, tuned: bool | None, source: str | None) -> KernelChoice:
    call = case.call
    facts = RuntimeFacts(
        case.activation_dtype,
        call.weight_dtype,
        case.quant_type,
        call.gate_mode,
        "true" if call.is_shuffled else "false",
        "" if plan.split_k == 0 else "1" if plan.split_k == 1 else "n",
        plan.post_activation_layout,
        case.gfx,
        call.activation,
    )
    stage1, stage2, stage_notes = case.families.stages_of(plan.func1, plan.kernel1, plan.func2, plan.kernel2, facts)
    case.notes.extend(stage_notes)
    return KernelChoice(
        activation_dtype=case.activation_dtype,
        padded_tokens=case.token,
        stage1=stage1,
        stage2=stage2,
        block_m=plan.block_m,
        ksplit=plan.ksplit,
        run_1stage=plan.run_1stage,
        tuned=tuned,
        source=source,
        error=_objection(case, plan),
        notes=tuple(case.notes),
    )


def _grouped(case: DispatchCase, tables: TableSet | None) -> KernelChoice:
    key = grouped_key(case)
    case.rule = GROUPED
    row = tables.grouped_index.find(key) if tables is not None else None
    tuned = None if tables is None else row is not None
    return _choice(case, grouped_plan(row), tuned, row.source if row is not None else None)


def _decide(case: DispatchCase, tables: TableSet | None) -> KernelChoice:
    check_call(case)
    case.activation_dtype = activation_dtype(case, case.tokens)
    if is_grouped(case):
        return _grouped(case, tables)
    _check_situv2(case)
    case.row = lookup(tables.index(case.behaviour), case) if tables is not None else None
    _settle(case)
    plan = plan_stages(case)
    _note_late_assertion(case, plan)
    source = case.row.source if case.row is not None else None
    return _choice(case, plan, None if tables is None else case.tuned, source)


def _raised(case: DispatchCase, tables: TableSet | None, error: DispatchError) -> KernelChoice:
    return KernelChoice(
        activation_dtype=case.activation_dtype or None,
        padded_tokens=case.token,
        tuned=None if tables is None else False,
        source=case.row.source if case.row is not None else None,
        error=str(error),
        notes=tuple(case.notes),
    )


def _chosen_tables(call: DispatchCall, tables: KernelTables | None, notes: list[str]) -> TableSet | None:
    chosen = tables.for_version(call.aiter) if tables is not None else None
    if chosen is None:
        notes.append(_NO_TABLES if tables is None else _NO_TABLES_FOR)
    elif call.aiter is None and chosen.version is not None:
        notes.append(f"the kernel tables are those of AITER {chosen.version}")
    return chosen


def dispatch(call: DispatchCall, tables: KernelTables | None = None, families: Families | None = None) -> KernelChoice:
    """Predict the kernels that AITER picks for a call.

    Neither a GPU nor AITER is needed.

    Args:
        call: The call, with AITER's version and environment.
        tables: Tuned tables; None (or none for the call's version): ``tuned`` is None and the answer is what AITER does
            for a shape without a row.
        families: By which kernels are mapped to bytes; None for those of the packaged book.

    Returns:
        The choice. What AITER raises is in its ``error``; nothing is raised for a valid call.

    Example:
        >>> call = DispatchCall(gfx="gfx950", cu_num=256, tokens=1, model_dim=3072, inter_dim=3072, expert=128, topk=4,
        ...                     activation="Swiglu", weight_dtype="fp4x2", quant_type="per_1x32")
        >>> choice = dispatch(call)
        >>> choice.activation_dtype, choice.stage1.func, choice.stage1.reads["w13_weight"]
        ('bf16', 'cktile_moe_stage1', 'sep16')
    """
    return decide(call, tables, families)[0]


def decide(
    call: DispatchCall, tables: KernelTables | None, families: Families | None
) -> tuple[KernelChoice, DispatchCase, TableSet | None]:
    """Dispatch a call; also return the final case and the tables."""
    case, chosen = open_call(call, tables, families)
    return outcome(case, chosen), case, chosen


def open_call(
    call: DispatchCall, tables: KernelTables | None, families: Families | None
) -> tuple[DispatchCase, TableSet | None]:
    """Open the case of a call; also return its version's tables."""
    behaviour = behaviour_of(call.aiter)
    notes = list(behaviour.notes)
    chosen = _chosen_tables(call, tables, notes)
    return _case(call, families or packaged_families(), behaviour, notes), chosen


def activation_bound(call: DispatchCall, families: Families | None = None) -> ActivationRule | None:
    """Return the rule by whose token bound the activation dtype changes.

    None where the dtype depends on no bound, or the call says it.
    """
    if call.quant_dtype_a is not None:
        return None
    rule = activation_rule(open_call(call, None, families)[0])
    return None if rule is None or rule.bound is None else rule


def outcome(case: DispatchCase, tables: TableSet | None) -> KernelChoice:
    """Apply the rules to a case, which they change."""
    try:
        return _decide(case, tables)
    except DispatchError as error:
        return _raised(case, tables, error)
