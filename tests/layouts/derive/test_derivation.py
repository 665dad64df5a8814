"""Derivation of prebuilt kernels: every byte, no conflict, the book's claim compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from preshuffle.registry import Registry
from preshuffle.registry.loading import Book
from support.kernels import deriver_of

STAGE_1 = "fmoe_stage1_bf16_pertokenFp8_g1u1_64x128_2tg_pf2"
SMALL = "fmoe_stage1_bf16_pertokenInt8_g1u1_16x128_4tg_pf2"
MXFP4 = "fmoe_bf16_pertokenMXfp4_g1u1_novs_silu_2tg_32x256"
TILES = "e (nt n16) (kt k16) -> e nt kt n16 k16"
SCALE_TILES = "e (nt r2 n16) (kt j2 k4) -> e nt kt k4 n16 j2 r2"


def test_stage_1_is_derived_in_full() -> None:
    result = deriver_of(STAGE_1, "gfx942").derive()
    assert result.not_modelled == {}
    assert (result.arch, result.book_family, len(result.sha256)) == ("gfx942", "asm_stage1", 64)
    weight, scale = result.roles["w13_weight"], result.roles["w13_weight_scale"]
    assert (weight.layout, weight.others, weight.pattern, weight.verdict) == ("sep16", (), TILES, "agrees")
    assert weight.bytes == weight.derived == 2 * 512 * 256
    assert weight.conflicts == scale.conflicts == 0
    assert (scale.layout, scale.verdict, scale.derived) == ("plain", "agrees", 2 * 512 * 4)
    right = weight.tried.pop("sep16")
    assert right < 0.003
    assert len(weight.tried) >= 5
    assert min(weight.tried.values()) > 0.9


def test_both_stages_of_mxfp4_are_derived_in_full() -> None:
    result = deriver_of(MXFP4, "gfx950").derive(numbers=False)
    assert {name: role.layout for name, role in result.roles.items()} == {
        "w13_weight": "sep16",
        "w2_weight": "sep16",
        "w13_weight_scale": "e8",
        "w2_weight_scale": "e8",
    }
    for name, role in result.roles.items():
        assert role.pattern == (SCALE_TILES if name.endswith("_scale") else TILES)
        assert (role.conflicts, role.derived, role.verdict) == (0, role.bytes, "agrees")
    assert result.roles["w2_weight"].through == "w13_weight in sep16"


def test_a_book_that_claims_another_layout_is_caught() -> None:
    result = deriver_of(SMALL, "gfx950", book_with_reads("gui16")).derive(["w13_weight"], numbers=False)
    role = result.roles["w13_weight"]
    assert (role.layout, role.claimed, role.verdict) == ("sep16", "gui16", "disagrees")


def test_a_layout_that_the_book_lacks_is_printed_as_a_line() -> None:
    book = Registry.load().book
    layouts = {id: entry for id, entry in book.layouts.items() if id != "sep16"}
    deriver = deriver_of(SMALL, "gfx942")
    deriver.layouts = {id: entry.layout() for id, entry in layouts.items()}
    role = deriver.derive(["w13_weight"], numbers=False).roles["w13_weight"]
    assert (role.layout, role.pattern, role.verdict) == (None, TILES, "disagrees")


def book_with_reads(layout: str) -> Book:
    book = Registry.load().book
    family = book.entries["kernel_families"]["asm_stage1"]
    variants = tuple(variant.altered(reads=variant.reads | {"w13_weight": layout}) for variant in family.variants)
    families = {**book.entries["kernel_families"], "asm_stage1": family.altered(variants=variants)}
    return replace(book, entries={**book.entries, "kernel_families": families})


@pytest.mark.parametrize("role", ["w2_weight", "w13", ""])
def test_a_role_that_the_kernel_does_not_read_is_an_error(role: str) -> None:
    with pytest.raises(ValueError, match="valid: w13_weight, w13_weight_scale"):
        deriver_of(SMALL, "gfx942").derive([role])
