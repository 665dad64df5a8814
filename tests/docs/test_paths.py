"""Every path, ``path.py:name`` and ``preshuffle.…`` name in the documentation exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOPS = frozenset(("registry", "layouts", "api", "preshuffle", "tests", "docs", "bench", "deploy", "changelog.d", ".ci"))
PATH = re.compile(r"(?P<path>[\w.-]+/[\w.*/-]*|[\w-]+\.(?:md|toml|txt))(?::(?P<name>[A-Za-z_][\w.]*))?")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def spans(text: str) -> Iterator[str]:
    """Yield what stands in backticks, code blocks left out."""
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text)))


def defined(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the names that a module or class defines or imports."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign):
            yield from ((target.id, node) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)


def wrong_path(path: str, name: str | None) -> str:
    """Return what is wrong with a path and a name in it; empty where it is right or none of ours."""
    if path.split("/")[0] not in TOPS and "/" in path:
        return ""
    found = [place for place in ROOT.glob(path) if not path.endswith("/") or place.is_dir()]
    if not found:
        return f"{path} does not exist"
    scope: ast.stmt | ast.Module = ast.parse(found[0].read_text(encoding="utf-8")) if name else ast.Module([], [])
    for part in name.split(".") if name else ():
        names = dict(defined(scope)) if isinstance(scope, ast.Module | ast.ClassDef) else {}
        if part not in names:
            return f"{path} defines no {name}"
        scope = names[part]
    return ""


def wrong_import(dotted: str) -> str:
    """Return what is wrong with a dotted name of the package; empty where it can be imported."""
    parts = dotted.split(".")
    value: object = None
    for index in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:index]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[index:]:
            if not hasattr(value, attribute):
                return f"{dotted} does not exist"
            value = getattr(value, attribute)
        return ""
    return f"{dotted} does not exist"


def problems(text: str) -> Iterator[str]:
    """Yield everything that a page names and that is not there."""
    for span in spans(text):
        if match := PATH.fullmatch(span):
            yield wrong_path(match["path"], match["name"])
        elif re.fullmatch(r"preshuffle(\.[A-Za-z_]\w*)+", span):
            yield wrong_import(span)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    assert list(filter(None, problems(page.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", page.read_text(encoding="utf-8")))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("`registry/nowhere.py`", "registry/nowhere.py does not exist"),
        ("`registry/registry.py:Registry.guess`", "registry/registry.py defines no Registry.guess"),
        ("`registry/nothing_*.yaml`", "registry/nothing_*.yaml does not exist"),
        ("`preshuffle.registry.Guess`", "preshuffle.registry.Guess does not exist"),
        (
            "`registry/registry.py:Registry.resolve`, `configs/`, `registry/book/*.yaml`, `preshuffle.registry.Query`",
            "",
        ),
    ],
)
def test_the_rule_sees_what_is_missing(text: str, complaint: str) -> None:
    assert list(filter(None, problems(text))) == ([complaint] if complaint else [])


def test_every_decision_record_is_listed_and_says_status_and_date() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for record in sorted(folder.glob("[0-9]*.md")):
        text = record.read_text(encoding="utf-8")
        title = re.match(r"# (\d+)\. (.+)\n\n\* Status: (.+)\n\* Date: (\d{4}-\d\d-\d\d)\n\n\S", text)
        assert title, record.name
        assert int(title[1]) == int(record.name[:4])
        assert f"| {title[1]} | [{title[2]}]({record.name}) | {title[3]}, {title[4]} |" in index


def test_fragments_of_the_changelog_have_a_known_type() -> None:
    import tomllib

    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
    types = {kind["directory"] for kind in config["type"]}
    names = [path.name for path in (ROOT / "changelog.d").iterdir()]
    pattern = re.compile(rf"(?:\d+|\+[a-z0-9-]+)\.(?:{'|'.join(types)})\.md")
    assert [name for name in names if not pattern.fullmatch(name)] == []
