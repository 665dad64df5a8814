"""``preshuffle layouts``: the list, and what a layout does to a shape."""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.registry import Registry

SHAPES = {"byte": (2, 64, 128), "group": (2, 64, 16), "any": (2, 64, 24)}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["layouts", "show", *arguments, "--json"]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_the_list_has_every_layout(capsys: pytest.CaptureFixture[str]) -> None:
    book = Registry.default().book
    assert main(["layouts", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in listed["layouts"]] == list(book.layouts)
    assert listed["registry_digest"] == book.digest
    assert main(["layouts", "list"]) == 0
    out = capsys.readouterr().out
    for entry in book.layouts.values():
        assert entry.pattern in out
        assert all(alias in out for alias in entry.aliases)


@pytest.mark.parametrize("name", Registry.default().book.layouts)
def test_the_numbers_are_the_layouts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = Registry.default().book.layouts[name]
    shape = SHAPES[entry.unit]
    bound = entry.layout().bind(*shape)
    report = shown(capsys, name, "--shape", ",".join(map(str, shape)), "--address", "1,33,9")
    assert report["address"]["address"] == bound.address(1, 33, 9)
    assert report["bound"]["modes"] == [list(mode) for mode in bound.permutation.modes]
    assert report["bound"]["bytes"] == prod(shape)
    run = report["bound"]["run"]
    for number, first in enumerate(report["bound"]["first"]):
        assert first["address"] == number * run
        for step in range(first["length"]):
            assert bound.source(first["address"] + step) == (first["expert"], first["row"], first["k"] + step)
    for row, numbers in report["bound"]["picture"]["rows"]:
        for k, number in zip(report["bound"]["picture"]["k"], numbers, strict=True):
            assert bound.address(0, row, k) == number * run


def test_the_kernel_families_that_read_a_layout_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    families = Registry.default().book.families
    for name in Registry.default().book.layouts:
        readers = {(reader["family"], role) for reader in shown(capsys, name)["readers"] for role in reader["roles"]}
        assert readers == {
            (family.id, role)
            for family in families
            for variant in family.variants
            for role, layout in variant.reads.items()
            if layout == name
        }
    assert main(["layouts", "show", "e8"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"ck_gemm1 +1 +w13_weight_scale", out)
    assert re.search(r"ck_gemm2 +2 +w2_weight_scale", out)
    assert main(["layouts", "show", "i4_scale_pairs"]) == 0
    assert "none of the book reads it" in capsys.readouterr().out


def test_a_kernel_family_of_an_overlay_is_listed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "kernel_families:\n  acme.gemm2:\n    stage: '2'\n    funcs: [acme_gemm2]\n    grammar: '^acme$'\n"
        "    variants: [{reads: {w2_weight: plain, w2_weight_scale: CDNA4_SCALE}}]\n"
    )
    readers = shown(capsys, "e8", "--book", str(overlay))["readers"]
    assert {"family": "acme.gemm2", "stage": "2", "roles": ["w2_weight_scale"], "evidence": []} in readers


def test_layouts_that_give_the_same_bytes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "plain", "--shape", "4,1,1")
    assert report["bound"]["identity"]
    one_tile = shown(capsys, "n32k4", "--shape", "2,32,4")
    assert one_tile["bound"]["identity"]
    assert "plain" in one_tile["bound"]["same_bytes_as"]


def test_an_alias_means_its_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "CDNA4_SCALE")["id"] == "e8"


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", Registry.default().book.layouts)
def test_the_picture_keeps_to_the_width(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shape = ",".join(map(str, SHAPES[Registry.default().book.layouts[name].unit]))
    assert main(["layouts", "show", name, "--shape", shape]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "http" not in line]
    assert max(map(len, lines)) <= width
    assert "picture" in out
    assert "size:stride" in out


def test_gate_and_up_are_told_apart_in_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "show", "gui16", "--shape", "128,6144,1536", "--address", "0,3072,0"]) == 0
    out = capsys.readouterr().out
    assert "gate 0–15" in out
    assert "up 3072  1536" in out
    assert "1,207,959,552 (1.125 GiB)" in out
    assert "expert 0, row 3072, K 0 lies at 24576 (0x6000)" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frob"], ["unknown layout 'frob'", "valid: plain, sep16"]),
        (["gui16", "--shape", "2,64"], ["--shape '2,64'", "E,ROWS,K"]),
        (["gui16", "--shape", "2,64,x"], ["three whole numbers"]),
        (["gui16", "--shape", "2,64,72"], ["K = 72 bytes is not a multiple of 64", "128"]),
        (["gui16", "--shape", "0,64,64"], ["experts is 0"]),
        (["gui16", "--address", "1,2,3"], ["--address needs --shape"]),
        (["gui16", "--shape", "2,64,64", "--address", "0,64,0"], ["64", "0..63"]),
        (["gui16", "--book", "/no/such"], ["/no/such: "]),
    ],
)
def test_bad_input_is_named(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts", "show", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [word for word in words if word not in err] == []
