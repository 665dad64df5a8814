"""Any changed byte or field of a manifest or a header is refused, and the file is named; keys are computed anew."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.laid_out import (
    LaidOutError,
    Manifest,
    StaleError,
    lay_out_checkpoint,
    open_laid_out,
    restore_checkpoint,
    verify_laid_out,
)
from preshuffle.layouts.laid_out.files.checked_file import check_header
from preshuffle.layouts.laid_out.files.manifest import digest_of_json
from preshuffle.layouts.laid_out.files.seal import BLANK, sealed
from support.tensors.laid_out import checkpoint_with_others

FIRST = "rank-tp0-ep0-layer-00000.safetensors"
FIELDS: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}
Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laid-out")
    checkpoint_with_others(folder / "checkpoint")
    lay_out_checkpoint(folder / "checkpoint", folder / "out", **FIELDS)
    return folder / "out"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def leaves(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield where a JSON value's numbers, texts and empty lists stand."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, inner in items:
        yield from leaves(inner, (*place, key))
    if not items:
        yield place


def changed(value: Any, place: Place) -> Any:
    """Return a JSON value with one leaf changed."""
    if place:
        inner = {place[0]: changed(value[place[0]], place[1:])}
        return {**value, **inner} if isinstance(value, dict) else [inner.get(n, one) for n, one in enumerate(value)]
    if isinstance(value, bool) or value is None:
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x" if isinstance(value, str) else ["x"]


def one_of_each_kind(places: Iterator[Place], chosen: random.Random) -> list[Place]:
    """Return one place of each path, list numbers left out."""
    kinds: dict[Place, list[Place]] = {}
    for place in places:
        kinds.setdefault(tuple(part for part in place if isinstance(part, str)), []).append(place)
    return [chosen.choice(found) for found in kinds.values()]


def test_every_field_of_a_manifest_is_covered(copy: Path) -> None:
    path = copy / "manifest.json"
    written = json.loads(path.read_text())
    places = one_of_each_kind(leaves(written), random.Random(1))
    assert {place[0] for place in places} == set(written)
    for place in places:
        path.write_text(json.dumps(changed(written, place), separators=(",", ":")))
        with pytest.raises(LaidOutError, match=r"manifest\.json"):
            Manifest.read(copy)


def test_every_byte_of_a_manifest_is_covered(copy: Path) -> None:
    path = copy / "manifest.json"
    data = path.read_bytes()
    chosen = random.Random(2)
    for place in [*chosen.sample(range(len(data)), 60), 0, len(data) - 1]:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << chosen.randrange(8))]) + data[place + 1 :])
        with pytest.raises(LaidOutError, match=r"manifest\.json"):
            Manifest.read(copy)
    for text in (data + b"\n", data[:-1], json.dumps(json.loads(data), indent=1).encode()):
        path.write_bytes(text)
        with pytest.raises(LaidOutError, match=r"manifest\.json"):
            Manifest.read(copy)


def test_every_byte_of_a_header_is_covered(copy: Path) -> None:
    manifest = Manifest.read(copy)
    record, path = manifest.ranks[0], copy / FIRST
    data = path.read_bytes()
    start = record.tensors[0].begin
    chosen = random.Random(3)
    for place in [*range(8), *chosen.sample(range(start), 60), start - 1]:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << chosen.randrange(8))]) + data[place + 1 :])
        with pytest.raises(LaidOutError, match=FIRST):
            check_header(path, record)
    assert {problem.file for problem in verify_laid_out(copy, samples=1).problems} == {FIRST}
    with pytest.raises(LaidOutError, match=FIRST):
        open_laid_out(copy, 0)
    with pytest.raises(LaidOutError, match=FIRST):
        restore_checkpoint(copy, copy.parent / "back")


def replant(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest, and give it a checksum that fits."""
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    manifest["checksum"] = BLANK
    (copy / "manifest.json").write_bytes(sealed(json.dumps(manifest).encode())[0])


def test_keys_are_computed_anew(copy: Path) -> None:
    """A manifest whose checksum fits, and whose plan is not the one that its files were made by."""

    def rename(manifest: dict[str, Any]) -> None:
        manifest["plans"][0]["prefix"] = "model.layers.{layer}.other."

    replant(copy, rename)
    problems = verify_laid_out(copy, samples=1).problems
    assert {problem.file for problem in problems} == {record.file for record in Manifest.read(copy).ranks}
    assert all("its key is not that of the decision" in problem.problem for problem in problems)
    with pytest.raises(LaidOutError, match="cut or named otherwise"):
        open_laid_out(copy, 0)


def test_a_file_of_other_shards_is_refused(copy: Path) -> None:
    def other_shards(manifest: dict[str, Any]) -> None:
        for source in manifest["sources"]:
            source["digest"] = "sum64:" + "0" * 32
        manifest["key"] = digest_of_json(
            {
                "format": manifest["format"],
                "files": {one["file"]: one["key"] for kind in ("ranks", "others", "kept") for one in manifest[kind]},
                "sources": {one["name"]: [one["size"], one["digest"]] for one in manifest["sources"]},
            }
        )

    replant(copy, other_shards)
    with pytest.raises(LaidOutError, match="made of other shards"):
        open_laid_out(copy, 0)


def test_a_plan_of_other_layers_is_refused(copy: Path) -> None:
    replant(copy, lambda manifest: manifest["plans"][0]["layers"].append(7))
    with pytest.raises(LaidOutError, match=r"manifest\.json: its plans are of other layers"):
        open_laid_out(copy, 0)


@pytest.mark.parametrize("name", ["config.json", "rank-tp1-ep0.safetensors.index.json", "tokenizer.json"])
def test_small_files_are_compared(copy: Path, name: str) -> None:
    (copy / name).write_text((copy / name).read_text().replace("0", "1") + " ")
    assert [problem.file for problem in verify_laid_out(copy, samples=1).problems] == [name]
    if name == "config.json":
        with pytest.raises(LaidOutError, match=r"config\.json: was changed"):
            open_laid_out(copy, 0, **FIELDS)
    if "index" not in name:
        with pytest.raises(LaidOutError, match="was changed since it was copied"):
            restore_checkpoint(copy, copy.parent / "back")
        assert not (copy.parent / "back").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"arch": "gfx942"},
        {"tp": 1},
        {"ep": 2},
        {"engine": "vllm"},
        {"engine": "sglang"},
        {"activation_dtype": "bf16"},
        {"env": {"GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT": "1"}, "engine": "atom", "activation_dtype": "bf16"},
        {"aiter_features": {"gate_mode": False}},
    ],
    ids=str,
)
def test_what_is_needed_otherwise_is_refused(made: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(StaleError, match="laid out"):
        open_laid_out(made, 0, **{**FIELDS, **fields})
