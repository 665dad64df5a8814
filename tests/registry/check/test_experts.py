# ruff: noqa: E501  (tables: one case, one line)
"""Experts of a rank: how many it holds, which slots were loaded, and what its mask is."""

from typing import Any

import pytest

from support.book.observations import BLOCK, TILES, bent, codes, deployment, report

Raw = dict[str, Any]

EP = deployment(BLOCK, TILES, ep=8)  # 64 experts, 8 on each rank
RAGGED = deployment(BLOCK, TILES, ep=6, num_experts=62)  # 10 on this rank; others have 11
SHARED = bent(
    deployment(
        BLOCK,
        TILES,
        model="zai-org/GLM-5.2-FP8",
        hidden_size=6144,
        intermediate_size=2048,
        num_experts=256,
        top_k=8,
        ep=8,
        applied={"expert_map": "mask"},
    )
)
MASK = {"expert_map": "mask"}


def with_experts(raw: Raw, count: int) -> Raw:
    """Return a copy in which a rank's tensors hold so many experts."""
    roles = raw["applied"]["tensors"]
    shapes = {
        role: {name: [count, *tensor[name][1:]] for name in ("logical_shape", "physical_shape")}
        for role, tensor in roles.items()
    }
    return bent(raw, **shapes)


CASES: dict[str, tuple[Raw, set[str]]] = {
    "a mask of a rank's experts": (bent(EP, applied=MASK | {"mask_ones": 8, "mask_size": 65}), set()),
    "a mask of a mask": (bent(EP, applied=MASK | {"mask_ones": 65, "mask_size": 65}), {"contract_mismatch"}),
    "ones throughout, size unknown": (bent(EP, applied=MASK | {"mask_ones": 64}), {"contract_mismatch"}),
    "a mask of ones where one rank has all": (bent(deployment(BLOCK, TILES), applied=MASK | {"mask_ones": 64, "mask_size": 65}), set()),
    "fewer ones than experts": (bent(EP, applied=MASK | {"mask_ones": 7}), {"contract_mismatch"}),
    "a mask of each rank": (bent(EP, applied=MASK | {"mask_ones": [8] * 8}), set()),
    "one rank's mask of another": (bent(EP, applied=MASK | {"mask_ones": [8] * 7 + [16]}), {"contract_mismatch"}),
    "ranks that differ by one": (bent(RAGGED, applied=MASK | {"mask_ones": [11, 11, 10, 10, 10, 10]}), set()),
    "the ones of an index map say nothing": (bent(EP, applied={"expert_map": "index", "mask_ones": 65, "kernels": [{"backend": "triton"}]}, w13_weight={"layout": "plain", "is_shuffled": False}, w2_weight={"layout": "plain", "is_shuffled": False}), set()),
    "with a shared expert of each rank": (bent(with_experts(SHARED, 33), applied={"mask_ones": 33, "mask_size": 258}), set()),
    "a rank that holds all": (with_experts(EP, 64), {"contract_mismatch"}),
    "a rank that misses one": (with_experts(EP, 7), {"contract_mismatch"}),
    "a shared expert on top": (with_experts(EP, 9), set()),
    "redundant experts": (bent(with_experts(EP, 10), applied={"eplb": True} | MASK | {"mask_ones": 10}), set()),
    "local experts of all ranks": (bent(SHARED, applied={"local_experts": [32] * 8}), set()),
    "shared ones copied to each rank": (bent(with_experts(SHARED, 33), applied={"local_experts": [33] * 8}), set()),
    "experts on no rank": (bent(SHARED, applied={"local_experts": [32] * 7 + [31]}), {"contract_mismatch"}),
    "every slot loaded": (bent(EP, w13_weight={"slots_loaded": list(range(8))}), set()),
    "a slot that was not loaded": (bent(EP, w13_weight={"slots_loaded": [0, 1, 2, 4, 5, 6, 7]}), {"load_coverage"}),
    "a slot behind the experts is a dummy": (bent(with_experts(EP, 9), w13_weight={"slots_loaded": list(range(8))}), set()),
    "a slot that is said to be a dummy": (bent(EP, applied={"dummy_slots": [7]}, w13_weight={"slots_loaded": list(range(7))}), set()),
    "another slot than the dummy": (bent(with_experts(EP, 9), applied={"dummy_slots": [8]}, w2_weight={"slots_loaded": list(range(7))}), {"load_coverage"}),
    "nothing loaded": (bent(EP, w13_weight={"slots_loaded": []}), {"load_coverage"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_experts(name: str) -> None:
    raw, found = CASES[name]
    assert codes(raw) == found, report(raw)


def test_what_is_unknown_is_not_judged() -> None:
    raw = bent(EP, applied=MASK | {"mask_ones": 9})
    for tensor in raw["applied"]["tensors"].values():
        del tensor["logical_shape"], tensor["physical_shape"]
    assert codes(raw) == set()  # a shared expert may be the ninth
    raw = bent(EP, w13_weight={"slots_loaded": [0]})
    del raw["query"]["ep"], raw["query"]["num_experts"]
    assert codes(raw) == set()


def test_the_message_names_the_slots() -> None:
    (finding,) = report(bent(EP, w13_weight={"slots_loaded": [0, 5]})).findings
    assert "expert slot 1-4, 6-7, which the router can choose" in finding.message
