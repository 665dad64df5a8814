"""Digests: the same on any machine, and over what the bytes and the call depend on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshuffle.registry import Query, Registry
from preshuffle.registry.kernels import KernelTables
from preshuffle.registry.values.digest import digest_of
from support.book.strategies import BOOK, REGISTRY, decide, load_overlay

ASK = (
    "from preshuffle.registry import Query, Registry; r = Registry.load();"
    "d = r.resolve(Query(model='gpt-oss-20b', arch='gfx950', tp=4)); print(r.digest, d.decision_digest)"
)
RULE = {"when": {"arch": "gfx950", "tp": 3}, "use": "mxfp4.sep16", "because": "a test", "evidence": ["x"]}


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_digests_are_the_same_in_another_process(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    found = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.split() == [REGISTRY.digest, decide(model="gpt-oss-20b", tp=4).decision_digest]


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens": [1]},
        {"tokens": [7, 7]},
        {"cu_num": 80},
        {"deployment": "prod"},
        {"producer": "quark"},
        {"rocm": "7.0"},
        {"aiter": "0.1.14"},
        {"env": {"PATH": "/bin"}},
        {"env": {"GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT": "0"}},
        {"model": "gpt-oss-120b"},
        {"top_k": 8},
    ],
)
def test_what_does_not_touch_the_bytes_or_the_call_does_not_touch_the_digest(fields: dict[str, Any]) -> None:
    assert decide(**fields).decision_digest == decide().decision_digest


@pytest.mark.parametrize(
    "fields",
    [
        {"tp": 2},
        {"ep": 2},
        {"activation_dtype": "fp4x2"},
        {"hidden_size": 2912},
        {"gate_up_order": "GGUU"},
        {"bias": False},
        {"engine": "vllm"},
        {"model": "openai/gpt-oss-20b"},
    ],
)
def test_what_touches_the_bytes_or_the_call_touches_the_digest(fields: dict[str, Any]) -> None:
    assert decide(**fields).decision_digest != decide().decision_digest


def test_kernel_tables_have_a_digest_of_their_own() -> None:
    with_tables = Registry(BOOK, KernelTables.load([]))
    query = Query(model="openai/gpt-oss-120b", arch="gfx950")
    assert with_tables.digest == REGISTRY.digest
    assert with_tables.resolve(query).decision_digest == REGISTRY.resolve(query).decision_digest


def test_the_registry_digest_is_over_meaning(tmp_path: Path) -> None:
    """Comments, key order, quotes, flow style, file names and the order of entries do not count; a value does."""
    block = (
        "# a comment\nrules:\n  mine:\n    evidence:\n      - 'x' # why\n    because: >-\n      a\n      test\n"
        '    use: "mxfp4.sep16"\n    when:\n      tp: 0x3\n      arch: gfx950\n'
    )
    texts = [json.dumps({"rules": {"mine": RULE}}), block]
    found = {load_overlay(tmp_path, text, f"{number}.yaml").digest for number, text in enumerate(texts)}
    assert len(found) == 1
    assert REGISTRY.digest not in found
    other = json.dumps({"rules": {"mine": {**RULE, "because": "another"}}})
    assert load_overlay(tmp_path, other).digest not in found


def test_the_order_of_entries_does_not_count(tmp_path: Path) -> None:
    first = {"a": RULE, "b": {**RULE, "when": {"tp": 5, "arch": "gfx950"}}}
    second = {"b": {**RULE, "when": {"arch": "gfx950", "tp": 5}}, "a": RULE}
    assert len({load_overlay(tmp_path, json.dumps({"rules": rules})).digest for rules in (first, second)}) == 1


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_key_order_does_not_count_and_types_do(value: dict[str, int | str]) -> None:
    turned = dict(reversed(value.items()))
    assert digest_of(turned) == digest_of(value)
    assert len(digest_of(value)) == len("sha256:") + 64
    assert digest_of({"x": value}) != digest_of(value)
    assert digest_of({"x": 1}) != digest_of({"x": "1"})
