"""Lookup in the tuned tables: key, and activation matching by version."""

from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.tables.index import ACT_TYPES, QUANT_TYPES, Index, Key, _find, torch_names
from preshuffle.registry.kernels.tables.rows import Row


def _retry(index: Index, case: DispatchCase, act_type: str, before: Key, after: Key) -> Row | None:
    data = case.behaviour.data
    tokens = [case.token, data.tier_retry[case.token]] if case.token in data.tier_retry else [case.token]
    for token in tokens:
        for gfx in (before[0], "*"):
            row = _find(index, data.act_type, (gfx, case.cu_num, token, *before[3:]), act_type, after)
            if row is not None:
                return row
    return None


def lookup_key(case: DispatchCase) -> dict[str, int | str]:
    """Return a call's lookup key, by table column."""
    call = case.call
    names = torch_names(case)
    gfx: dict[str, int | str] = {"gfx": call.gfx} if case.behaviour.data.key_has_gfx else {}
    return {
        **gfx,
        "cu_num": case.cu_num,
        "token": case.token,
        "model_dim": call.model_dim,
        "inter_dim": call.inter_dim,
        "expert": call.expert,
        "topk": case.topk,
        "act_type": ACT_TYPES[call.activation],
        "dtype": names[call.dtype],
        "q_dtype_a": names[case.activation_dtype],
        "q_dtype_w": names[call.weight_dtype],
        "q_type": QUANT_TYPES[case.quant_type],
        "use_g1u1": call.use_g1u1,
        "doweight_stage1": call.doweight_stage1,
    }


def lookup(index: Index, case: DispatchCase) -> Row | None:
    """Look up the row that AITER finds for a call.

    The second largest token tier answers where the largest has no row (``tier_retry``), and a row whose architecture
    nobody knows counts for every one, as AITER fills in the GPU that it runs on.
    """
    row = None if _is_bypassed(case) else _look_up(index, case)
    if row is None or index.without_flydsl is None or not lacks_flydsl(case, row):
        return row
    other = _look_up(index.without_flydsl, case, retries=False)
    if other is None:
        return row
    case.notes.append(f"row {row.source} needs FlyDSL: the row {other.source} answers instead")
    return other


def _is_bypassed(case: DispatchCase) -> bool:
    """Return whether AITER looks up no row of fp8 block scales for so few tokens."""
    call, most = case.call, case.behaviour.data.fp8_block_rows_above
    block = call.activation == "Silu" and call.dtype == "bf16" and case.quant_type == "per_1x128"
    return most > 0 and block and call.weight_dtype == case.activation_dtype == "fp8" and case.token * case.topk <= most


def lacks_flydsl(case: DispatchCase, row: Row) -> bool:
    """Return whether AITER drops a row because FlyDSL is missing.

    Only versions that know rows to take instead do so; others bind what they have by name.
    """
    if case.call.flydsl or not case.behaviour.data.flydsl_fallback:
        return False
    return row.kernel1.startswith("flydsl_") or row.kernel2.startswith("flydsl_")


def _look_up(index: Index, case: DispatchCase, retries: bool = True) -> Row | None:
    call, data = case.call, case.behaviour.data
    names = torch_names(case)
    gfx = call.gfx if data.key_has_gfx else ""
    before = (gfx, case.cu_num, case.token, call.model_dim, call.inter_dim, call.expert, case.topk)
    after = (
        names[call.dtype],
        names[case.activation_dtype],
        names[call.weight_dtype],
        QUANT_TYPES[case.quant_type],
        call.use_g1u1,
        call.doweight_stage1,
    )
    act_type = ACT_TYPES[call.activation]
    row = _find(index, data.act_type, before, act_type, after)
    if row is None and retries and (index.any_gfx or case.token in data.tier_retry):
        return _retry(index, case, act_type, before, after)
    return row
