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


def _stage(func: str, kernel: str, position: int, facts: RuntimeFacts) -> tuple[Stage, str | None]:
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


@lru_cache(maxsize=16384)
def stages_of(
    func1: str, kernel1: str, func2: str | None, kernel2: str, facts: RuntimeFacts
) -> tuple[Stage, Stage | None, tuple[str, ...]]:
    """Return both stages with their families and the layouts they read, and what an answer with them must say.

    Args:
        func1: AITER's function of stage 1.
        kernel1: Its kernel name, ``""`` where C++ picks one.
        func2: AITER's function of stage 2, None for a 1-stage kernel.
        kernel2: Its kernel name.
        facts: What the reads may depend on.
    """
    stage1, note1 = _stage(func1, kernel1, 1, facts)
    stage2, note2 = (None, None) if func2 is None else _stage(func2, kernel2, 2, facts)
    notes = dict.fromkeys(note for note in (note1, note2) if note is not None)
    return stage1, stage2, tuple(notes)
