"""A layout's line: what parses, what it says, and what is refused."""

import pytest

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.algebra.pattern import Pattern, fixed_size
from preshuffle.registry.base.errors import LayoutError
from support.book.strategies import LAYOUTS


@pytest.mark.parametrize(
    ("atom", "size"), [("n16", 16), ("r2", 2), ("k128", 128), ("g", 2), ("nt", None), ("e", None), ("n16t", None)]
)
def test_a_number_at_the_end_of_a_name_is_its_size(atom: str, size: int | None) -> None:
    assert fixed_size(atom) == size


@pytest.mark.parametrize(
    ("text", "rows", "k", "splits", "interleaves"),
    [
        ("e n k -> e n k", 1, 1, False, False),
        ("e (g n) k -> e g n k", 1, 1, False, False),
        ("e (g n) k -> e n g k", 2, 1, True, True),
        ("e (g n) k -> e n k g", 2, 1, True, True),
        ("e (n g) k -> e g n k", 2, 1, True, False),
        ("e (nt n16) (kt k16) -> e nt kt n16 k16", 16, 16, False, False),
        ("e (g nt n16) (kt k16) -> e nt g kt n16 k16", 32, 16, True, True),
        ("e (g nt n16) (kt k16) -> e g nt kt n16 k16", 16, 16, False, False),
        ("e (g nt n16) (kt k16) -> e g kt nt n16 k16", 32, 16, True, False),
    ],
)
def test_what_a_line_says(text: str, rows: int, k: int, splits: bool, interleaves: bool) -> None:
    pattern = Pattern.parse(text)
    assert (pattern.row_tile, pattern.k_tile) == (rows, k)
    assert (pattern.splits_gate_up, pattern.interleaves_gate_up) == (splits, interleaves)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "'->'"),
        ("e n k", "'->'"),
        ("e n k -> e n k -> e n k", "'->'"),
        ("e n k -> e n", "k"),
        ("e n k -> e n k m", "m"),
        ("e n k -> e k n n", ""),
        ("e n n -> e n", ""),
        ("e n -> e n", "2 logical dimensions"),
        ("e n k m -> e n k m", "4 logical dimensions"),
        ("e n k -> n e k", "expert axis comes first"),
        ("e n k -> ... k", "..."),
        ("e ... -> e ...", "..."),
        ("e (n 16) k -> e n 16 k", "bare numbers"),
        ("e (a b) k -> e b a k", "a and b both lack a size"),
        ("e (n n0) k -> e n0 n k", "size 0"),
        ("e (n g m2) k -> e g n m2 k", "outermost"),
        ("e n (g k) -> e g n k", "outermost"),
        ("e (n n16 k -> e n n16 k", ""),
        ("é\u202e ( k -> \x00", ""),
        ("() n k -> n k", ""),
    ],
)
def test_refused_lines_say_which_line(text: str, part: str) -> None:
    with pytest.raises(LayoutError) as caught:
        Pattern.parse(text)
    assert part in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shape", "first"),
    [
        ("e (g n16) k -> e g n16 k", (1, 32, 4), (0, 0, 1)),  # a fixed half keeps both halves
        ("e g k -> e k g", (1, 2, 4), (0, 1, 0)),  # g alone is an axis like any other
    ],
)
def test_gate_up_that_stays_is_dropped_only_where_the_size_is_free(
    text: str, shape: tuple[int, int, int], first: tuple[int, int, int]
) -> None:
    assert Layout.of("x", text).bind(*shape).source(1) == first


def test_k_multiple_must_hold_whole_tiles() -> None:
    with pytest.raises(LayoutError, match="k_multiple 24 is not a multiple of the pattern's K tile 16"):
        Layout.of("x", "e n (kt k16) -> e kt n k16", k_multiple=24)


@pytest.mark.parametrize("id", LAYOUTS)
def test_gate_mode_and_row_multiple_follow_from_the_line(id: str) -> None:
    layout = LAYOUTS[id]
    assert (layout.gate_mode == "interleave") == ("gu" in id)
    assert layout.row_multiple * (2 if layout.pattern.splits_gate_up else 1) == layout.pattern.row_tile
