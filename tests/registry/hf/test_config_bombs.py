"""Whatever a config.json holds, it is read or refused at once, with one short message that names file and field."""

from __future__ import annotations

import json
import os
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import QueryError
from preshuffle.registry.hf import read_config, unread_notes
from preshuffle.registry.hf.config import query_of
from support.bombs.configs import LIMIT, mutants, texts
from support.book.configurations import DEEPSEEK, INT4, PUBLISHED, QUARK_MXFP4
from support.book.strategies import BOOK
from support.computing import computed_within

MOST_S = 1.0
"""Seconds of computing."""
LONGEST = 4_000
"""Characters of a message."""
GIVEN = {"arch": "gfx950"}


def message_of(config: Any) -> str:
    """Read a configuration as the command does; return the error's message."""
    try:
        query_of(config, BOOK, GIVEN)
        return "".join(f"{note[:200]}\n" for note in unread_notes(config, BOOK))
    except QueryError as error:
        return str(error)


@pytest.mark.parametrize("step", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_a_costly_file_is_read_or_refused_at_once(step: int, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for name, make in islice(texts(), 0, None, step):
        text = make()
        assert len(text) <= LIMIT + 1, name
        path.write_bytes(text)
        message = computed_within(MOST_S, partial(message_of, path), name)
        assert len(message) < LONGEST + 101 * 200, name
        if "not read here\n" not in message and message:
            assert message.startswith(f"{path}: "), (name, message[:200])
            assert len(message) < LONGEST, name


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_a_value_of_a_wrong_kind_is_one_error(step: int) -> None:
    for model, (config, _) in PUBLISHED.items():
        for name, changed in islice(mutants(config), 0, None, step):
            assert len(message_of(changed)) < LONGEST, (model, name)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: 1,000,000,000 layers; valid: 1,024 at most"),
        ({"hidden_size": 10**30}, "hidden_size: a number of at most 64 bits is needed, found one of 31 digits"),
        ({"hidden_size": float("inf")}, "hidden_size: input should be a finite number"),
        ({"moe_intermediate_size": "x"}, "moe_intermediate_size: input should be a valid integer"),
        ({"model_type": "x" * 10_000}, "model_type: unknown 'xxx"),
        ({"rope": json.loads("[" * 40 + "]" * 40)}, "rope: nested more than 32 levels deep"),
        (
            {"quantization_config": {**QUARK_MXFP4, "exclude": ["re:(?=a)"]}},
            "quantization_config: a pattern of modules",
        ),
        (
            {"quantization_config": {**INT4, "ignore": [f"re:(.{{1,50}}){{1,10}}z{i}" for i in range(9_000)]}},
            "quantization_config: its patterns of modules take too long to match",
        ),
    ],
)
def test_an_error_names_the_file_and_the_field(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**DEEPSEEK, **change}))
    with pytest.raises(QueryError) as error:
        query_of(tmp_path, BOOK, GIVEN)
    assert str(error.value).startswith(f"{tmp_path}: {field}") or str(error.value).startswith(f"{path}: {field}")


def test_a_field_that_is_given_is_not_the_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DEEPSEEK))
    with pytest.raises(QueryError, match=r": intermediate_size: "):
        query_of(tmp_path, BOOK, {**GIVEN, "intermediate_size": "x"})


def test_what_no_configuration_is_as_large_as_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(QueryError, match="at most 16 MiB"):
        read_config(path)
    with pytest.raises(QueryError, match=r"cannot be read|at most 16 MiB"):
        read_config("/dev/zero" if os.path.exists("/dev/zero") else tmp_path / "none")


def test_every_expert_named_by_itself_takes_no_time() -> None:
    """As ModelOpt and llm-compressor write mixed checkpoints: 60 layers of 384 experts of three linear layers."""
    names = [f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj" for layer in range(60) for expert in range(384)
             for name in ("gate", "up", "down")]  # fmt: skip
    quantization = {**INT4, "ignore": [*INT4["ignore"], *names]}
    config = {**DEEPSEEK, "num_hidden_layers": 63, "quantization_config": quantization}
    assert "layers 3-59" in computed_within(MOST_S, lambda: message_of(config))
    assert computed_within(MOST_S, lambda: query_of(config, BOOK, GIVEN, 60)).weight_dtype == "i4x2"
