"""Laws of every layout of the book, and closed forms.

The closed forms were written by hand.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import LayoutError
from support.book.strategies import BOOK, LAYOUTS, address_table, cut_each_other, shapes, source_table

PAIRS = list(combinations(LAYOUTS, 2))
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
few = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@every_layout
@few
@given(data=st.data())
def test_address_and_source_are_inverse_on_every_index(layout: Layout, data: st.DataObject) -> None:
    bound = layout.bind(*data.draw(shapes(layout, most=2)))
    indices = list(np.ndindex(*bound.shape))
    addresses = [bound.address(*index) for index in indices]
    assert sorted(addresses) == list(range(len(indices)))
    assert [bound.source(address) for address in addresses] == indices


@every_layout
@few
@given(data=st.data())
def test_closed_form_is_einops_rearrange(layout: Layout, data: st.DataObject) -> None:
    bound = layout.bind(*data.draw(shapes(layout, most=2)))
    expected = address_table(bound)
    assert all(bound.address(*index) == expected[index] for index in np.ndindex(*bound.shape))


@every_layout
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_permutation_is_einops_rearrange_and_inverts(layout: Layout, data: st.DataObject) -> None:
    shape = data.draw(shapes(layout, most=5))
    permutation = layout.bind(*shape).permutation
    table = source_table(layout, shape)
    some = data.draw(st.lists(st.integers(0, table.size - 1), min_size=1, max_size=50))
    assert [permutation.source(address) for address in some] == table[some].tolist()
    assert [permutation.inverse().source(int(table[address])) for address in some] == some


@every_layout
@few
@given(data=st.data())
def test_experts_stay_apart(layout: Layout, data: st.DataObject) -> None:
    """Laying out all experts equals laying out each one."""
    experts, rows, k = data.draw(shapes(layout))
    whole = source_table(layout, (experts, rows, k)).reshape(experts, -1)
    one = layout.bind(1, rows, k).permutation
    assert all(np.array_equal(whole[e] - e * rows * k, whole[0]) for e in range(experts))
    assert one.source(rows * k - 1) == whole[0, -1]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_relayout_is_inverse_then_apply(pair: tuple[str, str], data: st.DataObject) -> None:
    first, second = (LAYOUTS[id] for id in pair)
    shape = data.draw(shapes(first, second))
    plain = np.random.default_rng(0).permutation(np.prod(shape))
    laid = plain[source_table(first, shape)]
    whole_halves = 2 * int(np.lcm(first.pattern.row_tile, second.pattern.row_tile))
    if shape[1] % whole_halves and cut_each_other(lambda: first.bind(*shape).relayout(second.bind(*shape))):
        return  # a half that is no whole number of tiles; whole ones never cut each other
    direct = first.bind(*shape).relayout(second.bind(*shape))
    moved = [laid[direct.source(address)] for address in range(0, direct.count, 97)]
    assert moved == plain[source_table(second, shape)][::97].tolist()


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@few
@given(data=st.data())
def test_equal_permutations_are_equal_bytes(pair: tuple[str, str], data: st.DataObject) -> None:
    first, second = (LAYOUTS[id] for id in pair)
    shape = data.draw(shapes(first, second))
    same = np.array_equal(source_table(first, shape), source_table(second, shape))
    assert (first.bind(*shape).permutation == second.bind(*shape).permutation) == same


@pytest.mark.parametrize(
    ("interleave", "separated", "interleaved"),
    [
        ("e (g nt n16) k -> e nt g n16 k", "sep16", "gui16"),
        ("e (g n) k -> e n g k", "sep16", "gurow16"),
        ("e (g nt n16) k -> e nt g n16 k", "e8", "e8_gui16"),
        ("e (g n) k -> e n g k", "n32k4", "n32k4_gurow"),
    ],
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_interleaved_is_separated_after_interleaving_rows(
    interleave: str, separated: str, interleaved: str, data: st.DataObject
) -> None:
    rows_first = Layout.of("rows", interleave)
    shape = data.draw(shapes(LAYOUTS[separated], LAYOUTS[interleaved], rows_first))
    composed = rows_first.bind(*shape).permutation.compose(LAYOUTS[separated].bind(*shape).permutation)
    assert composed == LAYOUTS[interleaved].bind(*shape).permutation


def test_an_alias_is_the_layout_itself() -> None:
    aliases = [(alias, entry.id) for entry in BOOK.layouts.values() for alias in entry.aliases]
    assert ("CDNA4_SCALE", "e8") in aliases
    assert all(BOOK.layout(alias) == BOOK.layout(id) for alias, id in aliases)


CLOSED_FORMS: dict[str, Callable[[int, int, int, int], int]] = {
    "sep16": lambda r, k, rows, ks: (r // 16 * (ks // 16) + k // 16) * 256 + r % 16 * 16 + k % 16,
    "gui16": lambda r, k, rows, ks: (
        ((r % (rows // 2) // 16 * 2 + r // (rows // 2)) * (ks // 16) + k // 16) * 256 + r % 16 * 16 + k % 16
    ),
    "e8": lambda r, k, rows, ks: (
        (r // 32 * (ks // 8) + k // 8) * 256 + k % 4 * 64 + r % 16 * 4 + k % 8 // 4 * 2 + r % 32 // 16
    ),
    "e8_gui16": lambda r, k, rows, ks: (
        (r % (rows // 2) // 16 * (ks // 8) + k // 8) * 256 + k % 4 * 64 + r % 16 * 4 + k % 8 // 4 * 2 + r // (rows // 2)
    ),
    "n32k4": lambda r, k, rows, ks: (r // 32 * (ks // 4) + k // 4) * 128 + r % 32 * 4 + k % 4,
}


@pytest.mark.parametrize("id", CLOSED_FORMS)
def test_closed_forms_written_by_hand(id: str) -> None:
    layout = LAYOUTS[id]
    experts, rows, k = 2, 2 * layout.pattern.row_tile * 3, layout.k_multiple * 3
    bound = layout.bind(experts, rows, k)
    for expert, r, c in np.ndindex(experts, rows, k):
        assert bound.address(expert, r, c) == expert * rows * k + CLOSED_FORMS[id](r, c, rows, k)


@pytest.mark.parametrize(
    ("id", "shape", "text"),
    [
        ("sep16", (2, 17, 32), "rows = 17 is not a multiple of 16; padded it is 32"),
        ("sep16", (2, 16, 33), "K = 33 bytes is not a multiple of 32; padded it is 64"),
        ("gui16", (2, 48, 64), "rows = 48 is not a multiple of 32; padded it is 64"),
        ("gui16", (2, 32, 1440), "K = 1440 bytes is not a multiple of 64; padded it is 1472"),
        ("e8", (1, 2880 + 16, 8), "rows = 2896 is not a multiple of 32; padded it is 2912"),
        ("e8", (1, 32, 90), "K = 90 groups is not a multiple of 8; padded it is 96"),
    ],
)
def test_a_shape_that_does_not_divide_is_told_what_would(id: str, shape: tuple[int, int, int], text: str) -> None:
    with pytest.raises(LayoutError) as caught:
        LAYOUTS[id].bind(*shape)
    assert str(caught.value) == f"layout {id}: {text}"


@pytest.mark.parametrize("shape", [(0, 32, 64), (1, 0, 64), (1, 32, 0), (-1, 32, 64), (1, -32, 64), (1, 32, -64)])
@every_layout
def test_empty_and_negative_shapes_are_refused(layout: Layout, shape: tuple[int, int, int]) -> None:
    with pytest.raises(LayoutError, match="1 or more"):
        layout.bind(*shape)


@pytest.mark.parametrize("position", [(2, 0, 0), (0, 32, 0), (0, 0, 64), (-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_positions_outside_are_refused(position: tuple[int, int, int]) -> None:
    with pytest.raises(LayoutError, match="is outside 0"):
        LAYOUTS["gui16"].bind(2, 32, 64).address(*position)


def test_relayout_needs_one_shape() -> None:
    with pytest.raises(LayoutError, match="one shape"):
        LAYOUTS["sep16"].bind(1, 32, 64).relayout(LAYOUTS["gui16"].bind(1, 64, 64))
