"""The pages of engines: their patches fit the book, and what they name is there. ``make engines`` runs the patches."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from preshuffle.layouts.conform.engines.engine_table import engine_table
from preshuffle.registry import Registry
from support.docs.blocks import ROOT
from support.docs.patches import patches
from support.engines.trees import ENGINES

LINES = 14
"""Lines of a patch at most, its imports and empty lines left out."""


def page_of(engine: str) -> str:
    return Path(ROOT / "docs" / "engines" / f"{engine}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_patch_is_short_and_names_what_the_book_knows(engine: str) -> None:
    (patch,) = patches(engine)
    (facts,) = (facts for facts in Registry.default().book.entries["engine_layers"].values() if facts.engine == engine)
    assert facts.conversion is not None
    assert patch.owner in facts.conversion.classes[patch.module]
    tree = ast.parse(patch.text)
    code = [line for line in patch.text.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(code) <= LINES
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (prepared,) = (call for call in calls if ast.unparse(call.func) == "prepare")
    assert {keyword.arg: ast.unparse(keyword.value) for keyword in prepared.keywords}["engine"] == repr(engine)
    for call in calls:
        if ast.unparse(call.func).endswith(".kwargs"):
            assert all(ast.literal_eval(name) in Registry.default().book.signatures.by_id for name in call.args)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_page_names_the_releases_that_were_read(engine: str) -> None:
    page = page_of(engine)
    assert engine_table(engine).release in page
    (facts,) = (facts for facts in Registry.default().book.entries["engine_layers"].values() if facts.engine == engine)
    assert facts.conversion is not None
    assert [release for release in facts.conversion.versions if release not in page] == []
    for part in ("## Try it in shadow mode", "## The patch", "## What it replaces", "embed.md", "engines-compared.md"):
        assert part in page
