"""Memo: bounded, per table, empty when copied."""

import pickle

import pytest

from preshuffle.registry.base.memo import Memo


def test_a_result_is_computed_once_per_table_and_key() -> None:
    memo, calls = Memo(), []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    assert [memo.get("a", 1, compute), memo.get("a", 1, compute), memo.get("b", 1, compute)] == [1, 1, 2]


def test_none_is_a_result() -> None:
    memo = Memo()
    assert memo.get("a", 1, lambda: None) is None
    assert memo.get("a", 1, lambda: 1) is None


def test_a_full_table_is_emptied_and_others_stay() -> None:
    memo = Memo(size=2)
    memo.get("other", 0, lambda: "kept")
    for key in range(3):
        memo.get("a", key, lambda: "old")
    assert memo.get("a", 0, lambda: "new") == "new"
    assert memo.get("a", 2, lambda: "new") == "old"
    assert memo.get("other", 0, lambda: "new") == "kept"


def test_an_error_is_raised_and_not_stored() -> None:
    memo = Memo()
    with pytest.raises(ZeroDivisionError):
        memo.get("a", 1, lambda: 1 // 0)
    assert memo.get("a", 1, lambda: 5) == 5


def test_a_copy_is_empty() -> None:
    memo = Memo(size=3)
    memo.get("a", 1, lambda: 1)
    assert pickle.loads(pickle.dumps(memo)).get("a", 1, lambda: 2) == 2
