"""Tiers over token counts, such as AITER's padding before a lookup."""

from preshuffle.registry.kernels.aiter_versions.dispatch_book import Tier


def next_pow2(value: int) -> int:
    """Return the smallest power of two that is at least ``value``."""
    return 1 if value <= 1 else 1 << (value - 1).bit_length()


def tier_value(tiers: tuple[Tier, ...], tokens: int) -> int:
    """Return the value of the first tier that takes a token count.

    Example:
        >>> tier_value((Tier(below=1024, to="pow2"), Tier(to=1024)), 100)
        128
    """
    for tier in tiers:
        if tier.below is None or tokens < tier.below:
            return next_pow2(tokens) if tier.to == "pow2" else tier.to
    raise ValueError(f"no tier takes {tokens} tokens")


def boundaries(tiers: tuple[Tier, ...], highest: int) -> set[int]:
    """Return the token counts at which the padded count may change."""
    points = {tier.below for tier in tiers if tier.below is not None}
    if any(tier.to == "pow2" for tier in tiers):
        points.update((1 << power) + 1 for power in range(highest.bit_length()))
        points.add(2)
    return {point for point in points if 1 < point <= highest}
