"""Patterns from data take linear time, and match as Python's ``re`` does."""

from __future__ import annotations

import csv
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, QueryError
from preshuffle.registry.base.linear_pattern import MAX_TEXT, LinearPattern, linear_pattern
from preshuffle.registry.hf.module_patterns import matches_module
from preshuffle.registry.loading import load_book
from support.computing import computed_within

BOOK = load_book()
GRAMMARS = {family.id: family.grammar for family in BOOK.families}
PATTERNS = {
    entry.id: entry.pattern for section in ("kernel_labels", "kernel_tags") for entry in BOOK.entries[section].values()
}
HOSTILE = [
    piece * 1000 + tail
    for piece in ("a", "1", "_", "moe_ck2stages_", "preshuffle_on", "_b16_", "a_", "x1", "_1x2")
    for tail in ("", "!", "\n")
]


def names() -> set[str]:
    """Kernel names in all tables that the tests have, and spoilt ones."""
    found = {str(name) for run in Registry.load().book.families for name in run.funcs}
    for file in Path(__file__).parents[2].rglob("*.csv"):
        with file.open(newline="", encoding="utf-8") as lines:
            found |= {
                value for row in csv.DictReader(lines) for key, value in row.items() if key and "ernelName" in key
            }
    found |= {
        "flydsl_moe2_layout_afp8_wfp4_bf16_t32x128x128_atomic_nt_sbm32",
        "flydsl_moe2_afp8_wfp4_bf16_t32x256x128_atomic_bnt2_persist",
        "opus_moe2_layout_afp8_wfp4_fp8_t64x256x256_sbm64_rbn3584",
        "_ZN5aiter56fmoe_stage1_bf16_pertokenFp8_doweight_g1u1_32x64_4tg_pf3E",
        "_ZN5aiter48fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_32x256E",
        "moe_ck2stages_gemm1_256x32x64x128_1x4_MulABScaleShuffled_v3_Nswizzle0_Quant2_MulRoutedWeight0_silu_B8_B8_B16",
        "cktile_a8w4_bm16", "ck", "FMOE_x", "flydsl_moe1", "", "grouped_gemm1_fp4_gugu",
    }  # fmt: skip
    return found | {name[:-1] for name in found} | {name + "x" for name in found} | {name.upper() for name in found}


@pytest.mark.parametrize("id", GRAMMARS)
def test_grammars_find_the_groups_that_re_finds(id: str) -> None:
    own, expected = linear_pattern(GRAMMARS[id]), re.compile(GRAMMARS[id])
    for name in names():
        match = expected.fullmatch(name)
        assert own.groups(name) == (match and {key: text or "" for key, text in match.groupdict().items()}), name


@pytest.mark.parametrize("id", PATTERNS)
def test_labels_and_tags_match_as_re_does(id: str) -> None:
    own, expected = linear_pattern(PATTERNS[id], ignore_case=True), re.compile(PATTERNS[id], re.IGNORECASE)
    for name in names():
        assert own.matches(name) == (expected.fullmatch(name) is not None), name


@pytest.mark.parametrize(
    "pattern",
    ["a|ab|abc", "(?P<x>a*)(?P<y>a*?)b?", "(?P<x>a|ab)(?P<y>c|bcd)?", "(?P<x>[^a-c]{2,3}?)(?P<y>.*)",
     r"(?P<x>\w+)\b(?P<y>\W*)", "(?:(?P<x>a)|b)*", "(?P<x>(?:a?){3})a", r"^(?P<x>\d{0,2})$", "(?P<x>a(?P<y>b)?)+"],
)  # fmt: skip
def test_groups_are_those_of_re(pattern: str) -> None:
    own, expected = LinearPattern(pattern), re.compile(pattern)
    for text in (
        "",
        "a",
        "ab",
        "abc",
        "abcd",
        "aab",
        "aaab",
        "ba",
        "xyz",
        "xy z",
        "12",
        "1",
        "abab",
        "aba",
        "b\n",
    ):
        match = expected.fullmatch(text)
        assert own.groups(text) == (match and {key: part or "" for key, part in match.groupdict().items()}), text


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)*b", r"(\w*)*x\d", "(?:a?){50}a{50}", "(.*)(.*)(.*)(.*)(.*)x"])
def test_no_pattern_takes_long(pattern: str) -> None:
    def match() -> None:
        own = LinearPattern(pattern)
        for text in ("a" * MAX_TEXT, "a" * 500 + "!", "a" * 10_000_000):
            own.matches(text), own.groups(text), own.starts(text)

    computed_within(1, match)
    assert LinearPattern("(?:(?P<x>a+)+c|a+b)").groups("a" * 1000 + "b") == {"x": ""}


def test_packaged_patterns_and_globs_take_no_time_for_hostile_names() -> None:
    def match() -> None:
        for text in HOSTILE:
            BOOK.families.parse_name(text), BOOK.families.is_known_name(text)
            for pattern in PATTERNS.values():
                linear_pattern(pattern, ignore_case=True).matches(text)
            fnmatchcase(text[:512], "*a" * 64), fnmatchcase(text[:512], "*a*_*1" * 21 + "b")

    computed_within(1, match)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("(?=a)b", "look-around"), (r"(a)\1", "back-references"), ("(a", "not a regular expression"), ("a)(?:b", "not a"),
     (r"(\w{90}){90}", "repetition size"), ("(" * 1900, "not a regular"), ("a" * 2001, "2000 characters")],
)  # fmt: skip
def test_a_pattern_of_no_linear_time_is_one_clear_error(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as found:
        LinearPattern(pattern)
    assert "\n" not in str(found.value)
    if "regular" in str(found.value) or "not a" in str(found.value):
        assert not matches_module(f"re:{pattern}", "model.layers.0.mlp.experts")  # as a loader takes it: no match
        return
    with pytest.raises(QueryError, match="quantization_config"):
        matches_module(f"re:{pattern}", "model.layers.0.mlp.experts")


def test_a_book_with_such_a_pattern_names_file_line_and_pattern() -> None:
    text = (
        "kernel_labels:\n  mine:\n    pattern: '(?=a)b'\n    families: {'1': ck_gemm1}\n    evidence: [x]\n"
        "kernel_tags:\n  other:\n    pattern: '(?P<x>a)(?P=x)'\n    title: t\n"
    )
    with pytest.raises(BookError) as found:
        load_book(texts=[{"o.yaml": text}])
    first, second = found.value.problems
    assert (first.file, first.line) == ("o.yaml", 3)
    assert "'(?=a)b'" in first.message
    assert second.line == 8


def test_patterns_of_a_checkpoint_take_no_time() -> None:
    def match() -> None:
        assert not matches_module("re:(a+)+$", "a" * 60 + "!")
        assert not matches_module("re:" + "(.*)" * 40 + "x$", "model.layers.0.mlp.experts.0.up_proj")
        assert matches_module("re:.*mlp.experts.*", "model.layers.3.mlp.experts.0.up_proj")

    computed_within(0.5, match)
