"""Heuristics for untuned shapes: stages, block size, K split."""

from collections.abc import Iterable, Iterator

from preshuffle.registry.kernels.aiter_versions.dispatch_book import OneStageCondition
from preshuffle.registry.kernels.aiter_versions.padding import tier_value
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.errors import DispatchError, env_int

ONE_STAGE_BLOCK_M = 32
_BLOCKS = (32, 64, 128)
_TILE_N = 128
_TILE_K = 256


def block_sizes_m(tokens: Iterable[int], topk: int, expert: int, inter_dim: int, cu_num: int) -> Iterator[int]:
    """Yield the block size that occupies the compute units best.

    That is the one with the fewest rounds over them, of those the one that leaves the fewest idle.

    Source: ``get_block_size_M``, aiter/fused_moe.py (0.1.7 on). AITER divides the product of tiles and rows as a
    whole: ``tiles * (slots + expert * block + block - 1) // block``; here what is the same at every count stands apart.
    """
    tiles_n = -(-inter_dim // _TILE_N)
    least = tiles_n * (expert + 1)
    for token in tokens:
        more = tiles_n * ((token - 1) * topk - 1)
        fewest = idle = best = 0
        for block in _BLOCKS:
            rounds, rest = divmod(least + more // block, cu_num)
            if rest:
                rounds += 1
            over = cu_num - rest
            if best == 0 or rounds < fewest or (rounds == fewest and over < idle):
                fewest, idle, best = rounds, over, block
        yield best


def k_split(case: DispatchCase) -> int:
    """Return the number of K splits for few tokens; 0: none.

    Source: ``get_ksplit``, aiter/fused_moe.py (0.1.9 on).

    Raises:
        DispatchError: ``ZeroDivisionError``, with expert parallelism and no routed expert (``topk`` 1).
    """
    if case.env:
        forced = env_int(case.env, "AITER_KSPLIT", 0)
        if forced:
            return forced
    slots = case.token * case.topk
    if slots > case.call.expert:
        return 0
    tiles = -(-case.call.inter_dim // _TILE_N) * slots
    if tiles >= case.cu_num:
        return 0
    if tiles == 0:
        raise DispatchError("ZeroDivisionError", "no tiles to split: topk counts only the masked slot")
    model_dim = case.call.model_dim
    # AITER starts at the first number alone; more parts than the second cannot be whole tiles of K.
    most = min(-(-case.cu_num // tiles), model_dim // _TILE_K)
    for parts in range(most, 1, -1):
        if model_dim % parts == 0 and (model_dim // parts) % _TILE_K == 0:
            return parts
    return 0


def _holds(condition: OneStageCondition, token: int, inter_dim: int) -> bool:
    c = condition
    return (
        (c.token_above is None or token > c.token_above)
        and (c.token_below is None or token < c.token_below)
        and (c.inter_multiple is None or inter_dim % c.inter_multiple == 0)
        and (c.inter_not_multiple is None or inter_dim % c.inter_not_multiple != 0)
    )


def one_stage_conditions(case: DispatchCase) -> tuple[OneStageCondition, ...]:
    """Return the alternative conditions for one stage of an untuned shape.

    One of them must hold; an empty tuple means that the shape never runs in one stage.

    Raises:
        DispatchError: The version has no entry for the architecture and indexes it all the same (``KeyError``).
    """
    call, data = case.call, case.behaviour.data
    if call.doweight_stage1 and data.one_stage_needs_no_doweight:
        return ()
    known = case.behaviour.one_stage.get(case.gfx)
    if known is None:
        if data.one_stage_unknown_gfx is not None:
            raise DispatchError(data.one_stage_unknown_gfx, f"'{case.gfx}'")
        return ()
    w = call.weight_dtype
    if (
        call.activation,
        case.quant_type,
        call.dtype,
        case.activation_dtype,
        w,
        call.use_g1u1,
        call.doweight_stage1,
    ) not in known:
        return ()
    facts = {"quant_type": case.quant_type, "weight_dtype": w}
    for rule in data.one_stage_run:
        if all(facts[name] in allowed for name, allowed in rule.when.items()):
            return rule.any
    return ()


def runs_one_stage(case: DispatchCase, conditions: tuple[OneStageCondition, ...]) -> bool:
    """Return whether an untuned shape runs in one stage."""
    token, inter_dim = case.token, case.call.inter_dim
    for condition in conditions:  # a loop: this is evaluated at every token count
        if _holds(condition, token, inter_dim):
            return True
    return False


def _read_numbers(case: DispatchCase, one_stage: bool) -> None:
    if case.env:
        env_int(case.env, "AITER_USE_NT", -1)
        if one_stage and case.quant_type == "per_1x128" and case.gfx == "gfx950":
            env_int(case.env, "AITER_XBFLOAT16", 0)


def untuned(case: DispatchCase) -> tuple[bool, int, int]:
    """Return one-stage flag, block size and K split without a row.

    Raises:
        DispatchError: As AITER raises for the architecture or for a variable that is not a number.
    """
    if runs_one_stage(case, one_stage_conditions(case)):
        _read_numbers(case, one_stage=True)
        return True, ONE_STAGE_BLOCK_M, 0
    _read_numbers(case, one_stage=False)
    return False, untuned_block_m(case), untuned_k_split(case)


def untuned_block_m(case: DispatchCase) -> int:
    """Return the block size of an untuned shape in two stages."""
    return next(untuned_blocks_m(case, (case.token,)))


def untuned_blocks_m(case: DispatchCase, tokens: Iterable[int]) -> Iterator[int]:
    """Yield block sizes of an untuned shape in two stages.

    One per padded token count.
    """
    if case.quant_type == "per_1x128":
        tiers = case.behaviour.data.block_m_per_1x128
        return (tier_value(tiers, token) for token in tokens)
    return block_sizes_m(tokens, case.topk, case.call.expert, case.call.inter_dim, case.cu_num)


def untuned_k_split(case: DispatchCase) -> int:
    """Return the K split of an untuned shape in two stages.

    Raises:
        DispatchError: As ``k_split`` does.
    """
    return k_split(case) if case.quant_type in case.behaviour.data.ksplit_quant_types else 0
