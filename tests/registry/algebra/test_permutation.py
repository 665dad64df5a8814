"""The algebra under the layouts, against numpy's transpose."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshuffle.registry.algebra.permutation import Mode, Permutation
from preshuffle.registry.base.errors import LayoutError
from support.book.strategies import Indices, cut_each_other

Shuffle = tuple[tuple[int, ...], tuple[int, ...]]


@st.composite
def shuffles(draw: st.DrawFn) -> Shuffle:
    """Sizes of a tensor's digits, and the order in which memory has them."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple))
    return sizes, tuple(draw(st.permutations(range(len(sizes)))))


def build(shuffle: Shuffle) -> Permutation:
    sizes, order = shuffle
    return Permutation.coalesce((sizes[axis], prod(sizes[axis + 1 :])) for axis in order)


def table(shuffle: Shuffle) -> Indices:
    sizes, order = shuffle
    return np.arange(prod(sizes), dtype=np.int64).reshape(sizes).transpose(order).reshape(-1)


@given(shuffles())
def test_source_is_numpys_transpose_and_address_its_inverse(shuffle: Shuffle) -> None:
    permutation, expected = build(shuffle), table(shuffle)
    assert [permutation.source(address) for address in range(permutation.count)] == expected.tolist()
    assert [permutation.address(position) for position in expected] == list(range(permutation.count))


@given(shuffles())
def test_inverse_undoes_on_both_sides(shuffle: Shuffle) -> None:
    permutation = build(shuffle)
    nothing = Permutation.identity(permutation.count)
    assert permutation.inverse().inverse() == permutation
    assert permutation.compose(permutation.inverse()) == nothing
    assert permutation.inverse().compose(permutation) == nothing


@given(shuffles(), st.data())
def test_equal_exactly_if_every_element_moves_alike(first: Shuffle, data: st.DataObject) -> None:
    order = tuple(data.draw(st.permutations(range(len(first[0])))))
    second = (first[0], order)
    assert (build(first) == build(second)) == np.array_equal(table(first), table(second))


@given(shuffles(), st.data())
def test_splitting_a_mode_changes_nothing(shuffle: Shuffle, data: st.DataObject) -> None:
    whole = build(shuffle)
    modes: list[tuple[int, int]] = []
    for size, stride in whole.modes:
        part = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        modes += [(size // part, stride * part), (1, 7), (part, stride)]
    assert Permutation.coalesce(modes) == whole


@settings(max_examples=300)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), st.data())
def test_compose_is_one_pass_for_two(sizes: tuple[int, ...], data: st.DataObject) -> None:
    """The second permutation cuts the laid-out bytes at other places than the first, or says that it cannot."""
    first = (sizes, tuple(data.draw(st.permutations(range(len(sizes))))))
    others = data.draw(st.permutations(sizes).map(tuple))
    second = (others, tuple(data.draw(st.permutations(range(len(others))))))
    if cut_each_other(lambda: build(first).compose(build(second))):
        return
    both = build(first).compose(build(second))
    assert [both.source(a) for a in range(both.count)] == table(first)[table(second)].tolist()


@given(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4).map(tuple), st.data())
def test_powers_of_two_always_compose_and_associatively(sizes: tuple[int, ...], data: st.DataObject) -> None:
    a, b, c = (build((sizes, tuple(data.draw(st.permutations(range(len(sizes))))))) for _ in range(3))
    assert a.compose(b).compose(c) == a.compose(b.compose(c))
    assert a.compose(b).inverse() == b.inverse().compose(a.inverse())


@pytest.mark.parametrize("modes", [[(2, 1), (2, 1)], [(2, 4), (2, 1)], [(3, 2)], [(2, 3), (3, 1), (2, 1)]])
def test_modes_that_are_no_bijection_have_no_inverse(modes: list[tuple[int, int]]) -> None:
    with pytest.raises(LayoutError, match="not a bijection"):
        Permutation.coalesce(modes).inverse()


@pytest.mark.parametrize("address", [-1, 12, 10**30])
def test_outside_is_refused(address: int) -> None:
    with pytest.raises(LayoutError, match=r"outside 0\.\.11"):
        Permutation.identity(12).source(address)


def test_counts_must_agree() -> None:
    with pytest.raises(LayoutError, match="6 and 8 elements"):
        Permutation.identity(6).compose(Permutation.identity(8))


def test_str_is_that_of_cute() -> None:
    assert str(Permutation.coalesce([(2, 1), (3, 2)])) == "(2,3):(1,2)"
    assert str(Permutation.identity(12)) == "(12):(1)"
    assert str(Permutation.identity(1)) == "(1):(0)"


def test_exact_however_large() -> None:
    rows, k = 10**15, 3 * 10**12
    turned = Permutation.coalesce([(k, 1), (rows, k)])
    assert turned.modes == (Mode(k, 1), Mode(rows, k))
    assert turned.address(turned.source(10**20 + 7)) == 10**20 + 7
