"""Maps a kernel to its family, and to the bytes that it reads in this call."""

import re
from functools import lru_cache
from typing import NamedTuple

from preshuffle.registry.kernels.book import Family, Variant, family_book
from preshuffle.registry.kernels.choice import Stage


class RuntimeFacts(NamedTuple):
    """What a kernel's reads may depend on besides its name; every value is spelled as the book spells it."""

    activation_dtype: str
    weight_dtype: str
    quant_type: str
    gate_mode: str
    is_shuffled: str
    split_k: str
    post_activation_layout: str


@lru_cache(maxsize=1)
def _grammars() -> tuple[tuple[Family, re.Pattern[str]], ...]:
    return tuple((family, re.compile(family.grammar)) for family in family_book().families)


@lru_cache(maxsize=1)
def _by_func() -> dict[str, tuple[tuple[Family, re.Pattern[str]], ...]]:
    funcs = {func for family, _ in _grammars() for func in family.funcs}
    return {func: tuple(pair for pair in _grammars() if func in pair[0].funcs) for func in funcs}


@lru_cache(maxsize=8192)
def parse_name(kernel: str) -> tuple[str, dict[str, str]] | None:
    """Return the family that a kernel name belongs to and what the name encodes.

    Args:
        kernel: A name from a table or a log.

    Example:
        >>> parse_name("flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w2_gui")[1]["gui"]
        '_gui'
    """
    for family, grammar in _grammars():
        match = grammar.match(kernel) if kernel else None
        if match is not None:
            return family.id, {name: text or "" for name, text in match.groupdict().items()}
    return None


def is_known_name(kernel: str) -> bool:
    """Say whether a table may name this: a kernel of a known family, or a tag that stands for a heuristic."""
    return parse_name(kernel) is not None or any(re.match(tag, kernel) for tag in family_book().tags)


def _fits(variant: Variant, facts: dict[str, str], groups: dict[str, str]) -> bool:
    for name, allowed in variant.when.items():
        value = groups.get(name[5:], "") if name.startswith("name.") else facts[name]
        if value not in allowed:
            return False
    return True


@lru_cache(maxsize=16384)
def stage_of(func: str, kernel: str, position: int, facts: RuntimeFacts) -> tuple[Stage, str | None]:
    """Return a stage with its family and the layouts that it reads, and what an answer with it must say.

    Args:
        func: AITER's function.
        kernel: Kernel name, ``""`` where C++ picks one.
        position: 1 or 2 (the grouped function serves both).
        facts: What the reads may depend on.
    """
    for family, grammar in _by_func().get(func, ()):
        match = grammar.match(kernel)
        if match is None or family.stage == str(3 - position):
            continue
        groups = {name: text or "" for name, text in match.groupdict().items()}
        variant = next((v for v in family.variants if _fits(v, facts._asdict(), groups)), None)
        reads = {} if variant is None else dict(variant.reads)
        stage = Stage(func=func, kernel=kernel, family=family.id, reads=reads)
        return stage, variant.note if variant is not None else None
    return Stage(func=func, kernel=kernel, family=None, reads={}), f"{func} knows no kernel {kernel!r}"
