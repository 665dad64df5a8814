"""Dimensions of MX scales: what a kernel refuses, and shapes that a report may give."""

from __future__ import annotations

from typing import Any

import pytest

from preshuffle.registry import Observation, Query
from preshuffle.registry.resolve.observation_of import observation_of
from support.book.strategies import REGISTRY

OPUS = "opus_moe2_afp8_wfp4_bf16_t32x128x256_sbm32"
FLYDSL = "flydsl_moe2_afp8_wfp4_bf16_t32x128x256_atomic"
STAGE1 = "flydsl_moe1_afp8_wfp4_bf16_t32x128x256_gui"
QUERY = Query(model="deepseek-ai/DeepSeek-V4-Pro", arch="gfx950", aiter="0.1.20", tp=2)


def codes(stage2: str, changes: dict[str, Any], query: Query = QUERY) -> set[tuple[str, str | None]]:
    decision = REGISTRY.resolve(query)
    data = observation_of(decision, query).model_dump(mode="json", exclude_unset=True)
    data["applied"]["kernels"] = [{"tokens": 1, "stage1": STAGE1, "stage2": stage2}] if stage2 else []
    data["applied"]["tensors"]["w2_weight_scale"].update(changes)
    report = REGISTRY.check(Observation.parse(data))
    return {
        (finding.code, finding.role) for finding in report.findings if finding.code in ("scale_shape", "pad_required")
    }


def shapes() -> tuple[int, int, int]:
    physical = REGISTRY.resolve(QUERY).tensors["w2_weight_scale"].physical_shape
    return physical if len(physical) == 3 else (0, 0, 0)


@pytest.mark.parametrize(("kernel", "refused"), [(OPUS, True), (FLYDSL, False)])
def test_opus_refuses_three_dimensions(kernel: str, refused: bool) -> None:
    experts, rows, k = shapes()
    found = codes(kernel, {"passed_shape": [experts, rows, k]})
    assert (("scale_shape", "w2_weight_scale") in found) is refused
    assert codes(kernel, {"passed_shape": [experts * rows, k]}) == set()
    assert codes(kernel, {"passed_shape": None}) == set()  # how it is passed is not known


def test_a_report_may_give_either_shape() -> None:
    experts, rows, k = shapes()
    for shape in ([experts, rows, k], [experts * rows, k]):
        assert codes(OPUS, {"physical_shape": shape}) == set()
    assert codes(OPUS, {"physical_shape": [experts * rows // 2, k], "passed_shape": None}) != set()


def test_gfx1250_may_report_rows_of_tiles() -> None:
    query = Query(model="openai/gpt-oss-120b", arch="gfx1250", activation_dtype="fp4x2", aiter="0.1.20")
    decided = REGISTRY.resolve(query).tensors["w2_weight_scale"]
    assert codes("", {"physical_shape": list(decided.passed_shape or ())}, query) == set()
    short = [decided.physical_shape[0], decided.physical_shape[1] // 64, 32 * decided.physical_shape[2]]
    assert codes("", {"physical_shape": short, "passed_shape": None}, query) != set()
