"""Rows that ranks loaded, beside how the engine's loader cuts."""

from __future__ import annotations

from typing import Any

import pytest

from preshuffle.registry import Observation, Query, Registry, observation_of

REGISTRY = Registry.default()
QWEN = {"model": "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "arch": "gfx950", "tp": 8}
BLOCKS = [512] * 6 + [0, 0]
EVEN = [384] * 8
SGLANG: dict[str, Any] = {"engine": "sglang@0.5.23"}
OSS = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "tp": 4, "engine": "vllm@0.33.0"}


def found(fields: dict[str, Any], loaded: list[int]) -> list[str]:
    """Return what check says of the loaded rows of a followed decision."""
    query = Query.parse(fields)
    raw = observation_of(REGISTRY.resolve(query), query).model_dump(mode="json", exclude_unset=True)
    raw["applied"]["tensors"]["w13_weight"]["rows_loaded"] = loaded
    report = REGISTRY.check(Observation.parse(raw))
    return [finding.message for finding in report.findings if finding.code == "load_coverage"]


@pytest.mark.parametrize(
    ("fields", "loaded"),
    [
        ({**QWEN, **SGLANG}, BLOCKS),
        ({**QWEN, "engine": "vllm@0.33.0", "env": {"--moe-backend": "aiter"}}, BLOCKS),
        ({**QWEN, "shard": "whole_blocks"}, BLOCKS),
        ({**QWEN, **SGLANG, "tp": 4}, [768] * 4),
        (OSS, [1472, 1472, 1472, 1344]),
        (OSS, [1440] * 4),  # vLLM's rule does not say how it cuts
        ({**OSS, "shard": "padded"}, [1536, 1536, 1536, 1152]),
        ({**QWEN, "engine": "sglang"}, EVEN),  # which release it is is not known
        ({**QWEN, "engine": "sglang@0.5.10"}, EVEN),  # older than what was read
    ],
)
def test_rows_as_the_loader_cuts_are_right(fields: dict[str, Any], loaded: list[int]) -> None:
    assert found(fields, loaded) == []


@pytest.mark.parametrize(
    ("fields", "loaded", "message"),
    [
        ({**QWEN, **SGLANG}, EVEN, "rank 0 loaded 384 rows; the engine's loader (rule sglang.fp8.block) gives it 512"),
        ({**QWEN, "shard": "whole_blocks"}, EVEN, "rank 0 loaded 384 rows; shard whole_blocks gives it 512"),
        ({**OSS, "shard": "padded"}, [1472, 1472, 1472, 1344], "rank 0 loaded 1472 rows; shard padded gives it 1536"),
        ({**OSS, "shard": "groups"}, [1536, 1536, 1536, 1152], "rank 0 loaded 1536 rows; shard groups gives it 1472"),
        ({**QWEN, **SGLANG}, [512] * 5 + [256, 256, 0], "rank 5 loaded 256 rows"),
        ({**QWEN, **SGLANG}, [512] * 5 + [0, 0, 0], "the ranks loaded 2560 rows in all; the checkpoint has 3072"),
    ],
)
def test_rows_that_are_cut_otherwise_are_found(fields: dict[str, Any], loaded: list[int], message: str) -> None:
    (said,) = found(fields, loaded)
    assert message in said
