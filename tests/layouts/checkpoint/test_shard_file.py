"""Headers that no writer of safetensors makes: one error each, soon, and in little memory."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.checkpoint import ShardFile, shard_file

ONE: dict[str, Any] = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


def written(path: Path, header: bytes | dict[str, Any], data: int = 4, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data))
    return path


HOSTILE: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "overlapping": ({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, "begins at byte"),
    "a gap": ({"a": ONE, "b": {**ONE, "data_offsets": [5, 9]}}, "begins at byte"),
    "out of range": ({"a": {**ONE, "shape": [1 << 40], "data_offsets": [0, 1 << 40]}}, "cut short"),
    "backwards": ({"a": {**ONE, "data_offsets": [4, 0]}}, "has -4 bytes"),
    "negative": ({"a": {**ONE, "shape": [-2, -2]}}, "size or an offset that is none"),
    "offsets below zero": ({"a": {**ONE, "data_offsets": [-4, 0]}}, "size or an offset that is none"),
    "a fraction": ({"a": {**ONE, "shape": [4.0]}}, "size or an offset that is none"),
    "infinite": (b'{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,4]}}', "size or an offset that is none"),
    "text": ({"a": {**ONE, "shape": ["4"]}}, "size or an offset that is none"),
    "true": ({"a": {**ONE, "shape": [True], "data_offsets": [0, 1]}}, "size or an offset that is none"),
    "a huge number": (b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', "not a safetensors"),
    "1e9 elements": ({"a": {**ONE, "shape": [10**9]}}, "has 4 bytes"),
    "1e18 elements": ({"a": {**ONE, "shape": [10**9, 10**9]}}, "has 4 bytes"),
    "many dimensions": ({"a": {**ONE, "shape": [1 << 60] * 10_000}}, "has no shape"),
    "one offset": ({"a": {**ONE, "data_offsets": [0]}}, "not a safetensors"),
    "no shape": ({"a": {"dtype": "U8", "data_offsets": [0, 4]}}, "not a safetensors"),
    "twice": (b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(ONE).encode() + b"}", "'a' is there twice"),
    "two shapes": (b'{"a":{"dtype":"U8","shape":[4],"shape":[2,2],"data_offsets":[0,4]}}', "is there twice"),
    "Latin-1": (b'{"\xe4":' + json.dumps(ONE).encode() + b"}", "not a safetensors"),
    "UTF-16": (json.dumps({"a": ONE}).encode("utf-16-le"), "not a safetensors"),
    "a list": (b"[1, 2]", "not a safetensors"),
    "nested": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not a safetensors"),
    "metadata that is none": (b'{"__metadata__":[1]}', "not a safetensors"),
    "a dtype that is none": ({"a": {**ONE, "dtype": ["U8"]}}, "has no dtype"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_one_error(tmp_path: Path, kind: str) -> None:
    header, message = HOSTILE[kind]
    path = written(tmp_path / "model.safetensors", header)
    with pytest.raises(CheckpointError, match=message) as raised:
        ShardFile.open(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert len(str(raised.value)) < len(str(path)) + 600


@pytest.mark.parametrize("length", [0, 1, 1 << 20, 101 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_s_length_that_is_none(tmp_path: Path, length: int) -> None:
    path = written(tmp_path / "model.safetensors", {"a": ONE}, length=length)
    with pytest.raises(CheckpointError, match="not a safetensors file, or cut short"):
        ShardFile.open(path)


@pytest.mark.parametrize("piece", [b'"%06d":0,', b"0,", b"[],", b'{"%06d":{}},'])
def test_many_values_take_little_memory(tmp_path: Path, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a 64th of what is allowed, and with all of it: neither takes more than 100 bytes for each mark."""
    monkeypatch.setattr(shard_file, "_MOST_MARKS", shard_file._MOST_MARKS // 64)
    marks = sum(map(piece.count, (b",", b":", b"[", b"{")))
    for count in (shard_file._MOST_MARKS // marks - 4, (2 << 20) // len(piece)):
        body = b"".join(piece % number for number in range(count)) if b"%" in piece else piece * count
        path = written(tmp_path / "model.safetensors", b'{"a":[' + body[:-1] + b"]}")
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file"):
                ShardFile.open(path)
            assert tracemalloc.get_traced_memory()[1] < 100 * shard_file._MOST_MARKS + (4 << 20)
        finally:
            tracemalloc.stop()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no regular file"):
        ShardFile.open(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ShardFile.open(tmp_path)


def test_empty_tensors_stand_in_any_order(tmp_path: Path) -> None:
    empty = {"dtype": "U8", "shape": [0, 4], "data_offsets": [0, 0]}
    for table in ({"b": ONE, "a": empty}, {"a": empty, "b": ONE}):
        found = ShardFile.open(written(tmp_path / "model.safetensors", table))
        assert {name: one.nbytes for name, one in found.entries.items()} == {"a": 0, "b": 4}
    save_file({"x": torch.zeros(0, 3), "y": torch.zeros(2), "z": torch.tensor(1.0)}, tmp_path / "other.safetensors")
    assert ShardFile.open(tmp_path / "other.safetensors").entries["z"].shape == ()
