"""Cutting a dimension between ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshuffle.registry import QueryError
from preshuffle.registry.algebra.shard import cut, split_experts


@given(st.integers(1, 300), st.integers(1, 64), st.sampled_from([1, 32, 128]))
def test_ranks_cover_the_dimension_in_whole_groups(groups: int, ranks: int, group: int) -> None:
    share = -(-groups // ranks)
    if share * (ranks - 1) >= groups:
        with pytest.raises(QueryError, match="leave the last without any"):
            cut(groups * group, ranks, group)
        return
    pieces = cut(groups * group, ranks, group)
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert pieces[-1].stop == groups * group
    assert {piece.size for piece in pieces[:-1]} <= {share * group}
    assert 0 < pieces[-1].size <= pieces[0].size
    assert all(piece.size % group == 0 for piece in pieces)


@pytest.mark.parametrize(
    ("ranks", "sizes"),
    [
        (1, [2880]),
        (2, [1440, 1440]),
        (4, [736, 736, 736, 672]),
        (8, [384] * 7 + [192]),
        (90, [32] * 90),
    ],
)
def test_gpt_oss(ranks: int, sizes: list[int]) -> None:
    assert [piece.size for piece in cut(2880, ranks, 32)] == sizes


@given(st.integers(1, 200), st.integers(2, 300))
def test_a_refused_cut_names_one_that_works(groups: int, ranks: int) -> None:
    try:
        cut(groups, ranks, 1)
    except QueryError as error:
        (problem,) = error.problems
        named = int(problem.valid[0].split(",")[0].split()[0])
        assert named < ranks, problem
        assert len(cut(groups, named, 1)) == named


def test_far_too_many_ranks_are_refused_before_slices_are_made() -> None:
    with pytest.raises(QueryError, match=r"10000000000000 ranks of 1 groups each .* 64, the next"):
        cut(2048, 10**13, 32)


@pytest.mark.parametrize(("size", "group"), [(2881, 32), (1, 32), (2880, 128)])
def test_half_a_group_is_refused(size: int, group: int) -> None:
    with pytest.raises(QueryError, match=f"^intermediate_size: {size} is not whole groups of {group}$"):
        cut(size, 1, group)


@given(st.integers(1, 512), st.integers(1, 64))
def test_experts_are_split_evenly_or_not_at_all(experts: int, ranks: int) -> None:
    if experts % ranks:
        with pytest.raises(QueryError, match=f"^ep: {ranks} ranks do not divide {experts} experts$"):
            split_experts(experts, ranks)
        return
    pieces = split_experts(experts, ranks)
    assert [index for piece in pieces for index in range(piece.start, piece.stop)] == list(range(experts))
    assert {piece.size for piece in pieces} == {experts // ranks}
