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
    if row is None and (index.any_gfx or case.token in data.tier_retry):
        return _retry(index, case, act_type, before, after)
    return row
