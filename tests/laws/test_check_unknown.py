"""What an observation leaves out is unknown: leaving more out makes no finding, and may make the verdict unknown."""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import Observation
from support.book.observations import (
    A4W4,
    A8W4,
    BLOCK,
    PLAIN,
    RIGHT,
    SEPARATED,
    SWIGLU,
    TILES,
    bent,
    codes,
    deployment,
    registry,
    report,
)

Raw = dict[str, Any]
INCIDENTS = Path(__file__).parents[3] / "shared" / "incidents"
KEPT = {
    ("query", "model"), ("query", "arch"), ("query", "env"), ("query", "tokens"), ("query", "engine", "name"),
    ("query", "activation_dtype"),
}  # fmt: skip
"""Fields without which there is no query, or whose absence says something: no switch, any token count, the model's."""


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            here = (*path, name)
            if len(here) > 1 and here not in KEPT and here[:2] != ("query", "env"):
                yield here
            yield from leaves(inner, here)


def without(raw: Raw, paths: list[tuple[str, ...]]) -> Raw:
    copy = deepcopy(raw)
    for *folders, name in paths:
        inner: Any = copy
        for folder in folders:
            inner = inner.get(folder, {})
        inner.pop(name, None)
    return copy


def assert_silent_with_less(raw: Raw, chosen: random.Random, tries: int) -> None:
    told = codes(raw)
    for _ in range(tries):
        paths = list(leaves(raw))
        gone = chosen.sample(paths, min(len(paths), chosen.choice((1, 2, 4, 10, 20))))
        found = codes(without(raw, gone))
        assert found <= told, (found - told, gone)


@pytest.mark.parametrize("name", RIGHT)
def test_leaving_out_makes_no_finding(name: str) -> None:
    assert_silent_with_less(RIGHT[name], random.Random(name), 40)


def test_leaving_out_makes_no_finding_in_the_controls() -> None:
    controls = sorted(INCIDENTS.glob("*-ok.json"))
    if not controls:
        pytest.skip("no incident cases beside this checkout")
    chosen = random.Random(5)
    for path in controls:
        assert_silent_with_less(json.loads(path.read_text())["observation"], chosen, 10)


@pytest.mark.parametrize(
    "applied",
    [
        {},
        {"gate_mode": "separated"},
        {"tensors": {"w2_weight": {"layout": "sep16", "is_shuffled": True}}},
        {"tensors": {"w13_weight": {"layout": "a layout of one's own"}}},
        {"tensors": {"w13_weight": {"layout": "plain"}, "w2_weight": {"layout": "plain"}}},
        {"tensors": {"w13_weight": {"layout": "sep16"}}, "kernels": [{"backend": "a backend of one's own"}]},
    ],
)
def test_too_little_is_unknown(applied: Raw) -> None:
    query = {"model": "test/model", "arch": "gfx950", "weight_dtype": "fp4x2", "quant_type": "per_1x32"}
    found = registry().check(Observation.parse({"query": query, "applied": applied}))
    assert (found.verdict, found.findings) == ("unknown", ())


def test_a_gpu_that_the_book_does_not_know() -> None:
    raw = deployment(BLOCK, TILES, arch="gfx999", applied={"kernels": [{"backend": "triton"}]})
    assert report(bent(raw, w13_weight={"layout": "plain", "is_shuffled": False})).verdict == "mismatch"
    assert report(deployment(BLOCK, PLAIN, arch="gfx999", applied={"kernels": [{"backend": "triton"}]})).verdict == "ok"


def test_w2_alone_proves_nothing() -> None:
    raw = deployment(A8W4, SEPARATED, applied={"gate_mode": "interleave"})
    for role in ("w13_weight", "w13_weight_scale"):
        del raw["applied"]["tensors"][role]
    assert report(raw).verdict == "unknown"


def test_an_unknown_gate_mode_is_no_default() -> None:
    for layouts in (SEPARATED, ("gui16", "e8_gui16", "sep16", "e8")):
        raw = deployment(A4W4, layouts, activation="Swiglu", activation_dtype=None)
        assert report(raw).verdict == "ok"
    torn = deployment(A4W4, ("gui16", "e8", "sep16", "e8"), activation="Swiglu", activation_dtype=None)
    assert "layout_mismatch" in codes(torn)


def test_only_errors_that_every_possible_call_has_are_told() -> None:
    cktile = {"gate_mode": "separated", "kernels": [{"tokens": 8, "stage1": "cktile", "stage2": "cktile"}]}
    raw = deployment(SWIGLU, SEPARATED, intermediate_size=640, applied=cktile, activation_dtype=None)
    assert codes(raw) == {"known_bad"}
    for role in ("w13_weight", "w2_weight"):
        for name in ("layout", "is_shuffled"):  # without a tag AITER might have read alternating scales
            del raw["applied"]["tensors"][role][name]
    assert codes(raw) == {"known_bad"}


def test_a_scale_says_what_gate_mode_is_likely() -> None:
    raw = deployment(A4W4, ("gui16", "e8_gui16", "sep16", "e8"))
    del raw["applied"]["tensors"]["w13_weight"]
    assert codes(raw) == {"unsupported"}


def test_sizes_that_no_call_can_have() -> None:
    raw = deployment(A4W4, SEPARATED, applied={"gate_mode": "separated"}, num_experts=2**20, top_k=1)
    assert report(raw).verdict in ("ok", "unknown")
    empty = bent(raw, w13_weight={"physical_shape": [0, 0, 0]}, w2_weight={"physical_shape": [0, 0, 0]})
    assert report(empty).verdict != "ok"


ODD: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("query", "aiter"): (None, "0.1.7.post2.dev18", "0.1.20.dev+ge4048607a5", "9.9", "0.0.1"),
    ("query", "arch"): ("gfx942", "gfx1250", "gfx90a"),
    ("query", "weight_dtype"): (None, "bf16", "fp8", "i4x2", "i8"),
    ("query", "quant_type"): (None, "No", "per_Tensor", "per_1x128"),
    ("query", "activation"): (None, "Gelu", "Situv2"),
    ("query", "ep"): (1, 3, 4096),
    ("query", "tp"): (1, 7, 4096),
    ("query", "env"): ({"AITER_BF16_FP8_MOE_BOUND": "many"}, {"GPU_ARCHS": ";"}, {"CU_NUM": "-1"}, {"": ""}),
    ("query", "engine"): ({"name": "vllm", "version": "0.1"}, {"name": "none"}),
    ("applied", "kernels"): ([{}], [{"stage2": "x"}], [{"tokens": 2**31, "backend": "AITER"}], [{"stage1": "flydsl"}]),
    ("applied", "events"): (["wake"], ["apply"] * 9),
    ("applied", "cache"): ({"aiter": "not a version", "recipe_digest": "x", "ep": 9}, {}),
    ("applied", "swizzle_mx_scale"): ("", "NONE", "other"),
    ("applied", "swiglu_limit"): (1e300, -1.0),
    ("applied", "tensors", "w13_weight", "physical_shape"): (
        [1],
        [0, 0],
        [2, 0, 0],
        [1, 2, 3, 4],
        [2**20, 2**30, 2**30],
    ),
    ("applied", "tensors", "w2_weight_scale", "physical_shape"): ([7], [7, 7], [0, 0, 0]),
    ("applied", "tensors", "w2_weight", "logical_shape"): ([5], [1, 1, 1]),
    ("applied", "tensors", "w13_weight", "rows_loaded"): ([], [0], [1, 2, 3]),
}


@pytest.mark.parametrize("number", [200, pytest.param(4000, marks=pytest.mark.slow)])
def test_nothing_odd_raises(number: int) -> None:
    chosen = random.Random(11)
    for _ in range(number):
        raw = deepcopy(chosen.choice(list(RIGHT.values())))
        for path in chosen.sample(sorted(ODD), chosen.choice((1, 2, 5, 9))):
            inner: Any = raw
            for folder in path[:-1]:
                inner = inner.setdefault(folder, {})
            inner[path[-1]] = chosen.choice(ODD[path])
        assert report(raw).verdict


def test_a_loaded_dtype_counts_before_the_models_entry() -> None:
    """Kimi-K3's entry says fp4x2; a deployment that loaded int4 runs the kernels of int4."""
    weight = {"layout": "sep16", "is_shuffled": True, "dtype": "i4x2"}
    raw: Raw = {
        "query": {"model": "moonshotai/Kimi-K3", "arch": "gfx942", "cu_num": 304, "aiter": "0.1.20"},
        "applied": {"kernels": [{"backend": "aiter"}], "tensors": {"w13_weight": weight, "w2_weight": weight}},
    }
    assert codes(raw) == set()
    assert "unsupported" in codes({**raw, "applied": {**raw["applied"], "tensors": {}, "gate_mode": "separated"}})
