"""A fusion that names what the book has not, or ties with another, does not load."""

from pathlib import Path

import pytest

from preshuffle.registry import BookError, Query
from preshuffle.registry.layer import layer_of
from support.book.strategies import load_overlay

HEAD = "fusions:\n  mine:\n    when: {engine: acme%s}\n"
TAIL = "    because: it was read\n    evidence: [https://example.org]\n"


@pytest.mark.parametrize(
    ("more", "fields", "text"),
    [
        ("", "    outcome: melted\n", "fused"),
        ("", "", "either an outcome or a fault is needed"),
        ("", "    outcome: fused\n    fault: stops\n    fix: x\n", "either an outcome or a fault is needed"),
        ("", "    fault: stops\n", "a fault needs a fix"),
        (", modle: x", "    outcome: fused\n", "unknown fact"),
        (", tp: many", "    outcome: fused\n", "a number, a list of numbers or a range is needed"),
        (", env: {VLLM_QQ: '1'}", "    outcome: fused\n", "unknown switch 'VLLM_QQ'"),
        (", arch: gfx000", "    outcome: fused\n", "unknown arch 'gfx000'"),
        (", model_type: deepseek", "    outcome: fused\n", "unknown model_type 'deepseek'"),
        ("", "    outcome: fused\n    aiter_features: [fhmoe]\n", "unknown feature 'fhmoe'"),
        ("", "    outcome: fused\n    one_of: [{env: {VLLM_ROCM_USE_AITER: '1'}}]\n", "conditions of `when` alone"),
        (
            "",
            "    outcome: apart\n" + TAIL + "  other:\n    when: {engine: acme}\n    outcome: fused\n",
            "equally specific",
        ),
    ],
)
def test_what_cannot_decide_does_not_load(tmp_path: Path, more: str, fields: str, text: str) -> None:
    with pytest.raises(BookError, match=text):
        load_overlay(tmp_path, HEAD % more + fields + TAIL)


def test_a_fusion_needs_an_engine(tmp_path: Path) -> None:
    with pytest.raises(BookError, match="engine is needed"):
        load_overlay(tmp_path, f"fusions:\n  mine:\n    when: {{tp: 8}}\n    outcome: fused\n{TAIL}")


def test_an_overlay_tells_of_an_engine_of_its_own(tmp_path: Path) -> None:
    registry = load_overlay(tmp_path, HEAD % ", shared_alike: true" + "    outcome: fused\n" + TAIL)
    query = Query.parse({"model": "deepseek-ai/DeepSeek-R1-0528", "arch": "gfx950", "engine": "acme", "tp": 8})
    layer = layer_of(query, registry.book)
    assert layer.query.num_experts == 257
    assert layer.slots.reason == "1 shared expert counts among the experts: it was read"
