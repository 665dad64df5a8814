"""Dependencies: third-party packages that each room may import, and what is never installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHARED = frozenset(sys.stdlib_module_names)
PARSING = frozenset({"pydantic", "pydantic_core", "einops", "packaging", "re2", "yaml"})
SERVING = frozenset(
    {"fastapi", "starlette", "uvicorn", "httptools", "jinja2", "markupsafe", "httpx", "anyio", "prometheus_client"}
)
STORING = frozenset({"sqlalchemy", "alembic", "psycopg"})
WEB = SERVING | STORING

ANYWHERE: dict[str, frozenset[str]] = {
    "preshuffle": frozenset(),
    "registry": PARSING,
    "layouts": frozenset({"torch", "safetensors", "numpy", "pydantic", "yaml"}),
    "api": frozenset({"pydantic", "pydantic_core", "yaml"}) | WEB,
}
"""Packages of others that each room may import anywhere."""

INSIDE_FUNCTIONS: dict[str, frozenset[str]] = {
    "preshuffle": frozenset(),
    "registry": frozenset(),
    "layouts": frozenset({"triton", "aiter", "flydsl", "fsspec", "ray", "vllm", "sglang", "atom"}),
    "api": frozenset({"rich"}),
}
"""Packages of others that each room may import inside functions only."""

ROOMS = {
    "preshuffle": {"api"},
    "registry": {"registry"},
    "layouts": {"registry", "layouts"},
    "api": {"registry", "api"},
}
"""Rooms that each room may import anywhere."""

OF_PLUGINS = {
    "layouts/engines/plugins/": "preshuffle.api.client",
    "preshuffle/plugins.py": "preshuffle.layouts.engines.plugins",
}
"""Modules of other rooms that engines' plugins import, inside functions only, by the beginning of their paths."""

BARE = frozenset({"registry", "layouts", "api"})
"""Folders that are importable by accident from the root, without the project's name."""


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def house_files() -> list[Path]:
    return python_files(*ROOMS)


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Yield every imported module, whether inside a function (or for type checkers only), and the line."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, lazy, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), lazy, node.lineno
            for alias in node.names:
                if node.module == "preshuffle" or (node.module == "preshuffle.layouts" and is_triton(alias.name)):
                    yield f"{node.module}.{alias.name}", lazy, node.lineno
        else:
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            inside = lazy or typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from imports(node, inside)


def wrong_imports(path: Path, text: str) -> Iterator[str]:
    """Yield what is wrong with a file's imports."""
    room = path.relative_to(ROOT).parts[0]
    for module, lazy, line in imports(ast.parse(text)):
        place = f"{path.relative_to(ROOT)}:{line}"
        top, _, rest = module.partition(".")
        if module.startswith("."):
            yield f"{place}: relative import {module}"
        elif top in BARE:
            yield f"{place}: bare import {module}; it is preshuffle.{module}"
        elif top == "preshuffle":
            other = rest.partition(".")[0]
            command = room == "api" and lazy and is_command(path)
            allowed = (other == "layouts" and command) or (lazy and is_of_plugin(path, module))
            if other and other not in ROOMS[room] and not allowed:
                yield f"{place}: {room} imports {module}"
            elif is_triton(rest.rpartition(".")[2]) and not (lazy or is_triton(path.stem)):
                yield f"{place}: {module} needs Triton; import it inside a function"
        elif top == "triton" and room == "layouts" and is_triton(path.stem):
            continue  # a module of kernels; whoever uses it imports it inside a function
        elif top not in SHARED | ANYWHERE[room] and not (lazy and top in INSIDE_FUNCTIONS[room]):
            yield f"{place}: {room} imports {module}" + ("" if lazy else " at module level")


def is_triton(module: str) -> bool:
    """Whether a module's name says that it holds Triton kernels and may import Triton at module level."""
    return "triton" in module


def is_of_plugin(path: Path, module: str) -> bool:
    """Whether a module belongs to a plugin of an engine, which may import this."""
    name = path.relative_to(ROOT).as_posix()
    return any(name.startswith(place) and f"{module}.".startswith(f"{one}.") for place, one in OF_PLUGINS.items())


def is_command(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return parts[0] == "api" and (parts[1] == "commands" or parts[1].startswith("cli"))


def test_every_module_imports_only_what_its_room_may() -> None:
    found = [wrong for path in house_files() for wrong in wrong_imports(path, path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("registry/x.py", "import torch", "registry imports torch"),
        ("registry/x.py", "def f():\n    import fastapi", "registry imports fastapi"),
        ("registry/x.py", "from preshuffle.layouts import apply", "registry imports preshuffle.layouts"),
        ("registry/x.py", "from preshuffle import api", "registry imports preshuffle.api"),
        ("registry/x.py", "from .query import Query", "relative import .query"),
        ("registry/x.py", "from registry.query import Query", "bare import registry.query"),
        ("layouts/x.py", "import triton", "layouts imports triton at module level"),
        ("layouts/x.py", "from preshuffle.layouts.triton_x import f", "needs Triton"),
        ("layouts/x.py", "from preshuffle.layouts import triton_x", "needs Triton"),
        ("layouts/x.py", "from preshuffle.api.store.store import Store", "layouts imports preshuffle.api.store.store"),
        (
            "layouts/x.py",
            "def f():\n    from preshuffle.api.client import Client",
            "layouts imports preshuffle.api.client",
        ),
        ("layouts/engines/plugins/x.py", "from preshuffle.api.client import Client", "layouts imports preshuffle.api"),
        ("layouts/engines/plugins/x.py", "def f():\n    import preshuffle.api.store", "layouts imports preshuffle.api"),
        (
            "preshuffle/plugins.py",
            "import preshuffle.layouts.engines.plugins.vllm",
            "preshuffle imports preshuffle.lay",
        ),
        ("preshuffle/x.py", "def f():\n    import preshuffle.layouts", "preshuffle imports preshuffle.layouts"),
        ("api/x.py", "def f():\n    import torch", "api imports torch"),
        ("api/x.py", "def f():\n    from preshuffle.layouts import apply", "api imports preshuffle.layouts"),
        ("api/commands/x.py", "from preshuffle.layouts import apply", "api imports preshuffle.layouts"),
    ],
)
def test_the_rule_sees_a_violation(file: str, text: str, complaint: str) -> None:
    (found,) = wrong_imports(ROOT / file, text)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("layouts/x.py", "def f():\n    import triton, aiter"),
        ("layouts/triton_x.py", "import triton"),
        ("layouts/x.py", "def f():\n    from preshuffle.layouts import triton_x"),
        ("layouts/engines/plugins/x.py", "def f():\n    from preshuffle.api.client import Client"),
        ("preshuffle/plugins.py", "def f():\n    from preshuffle.layouts.engines.plugins.vllm import register"),
        ("api/commands/x.py", "def f():\n    from preshuffle.layouts import apply"),
        ("api/x.py", "import fastapi\nfrom preshuffle.registry import Query"),
        ("registry/x.py", "import json, yaml\nfrom einops import rearrange"),
    ],
)
def test_the_rule_lets_what_is_allowed_pass(file: str, text: str) -> None:
    assert list(wrong_imports(ROOT / file, text)) == []


def test_other_files_use_no_bare_or_relative_imports() -> None:
    found = []
    for path in [*python_files("tests", "bench"), *ROOT.glob("*.py")]:
        for module, _, line in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if module.startswith(".") or module.partition(".")[0] in BARE:
                found.append(f"{path.relative_to(ROOT)}:{line}: {module}")
    assert found == []


def tracked_files() -> list[Path]:
    """Every file of the tree that git knows or would add."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


INSTALLS_STRANGER = re.compile(
    r"""(?:pip3?|uv|pipx|poetry|conda)\s+(?:pip\s+)?(?:install|add)\b[^\n&|;,`()#]*?(?<![\w.\[/-])aiter(?![\w\]/.-])""",
    re.X,
)


def test_nothing_installs_the_distribution_that_only_has_aiters_name() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace").replace("\\\n", " ")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in INSTALLS_STRANGER.finditer(text)]
    assert found == []


def test_no_requirement_is_the_distribution_that_only_has_aiters_name() -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        words = re.findall(r"(?m)^[\s\"'\[]*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*[=<>~!]=", (ROOT / name).read_text())
        assert "aiter" not in words, name


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("pip " + "install aiter", True),
        ("python -m pip " + "install -q torch aiter==0.13", True),
        ("uv pip " + "install aiter>=1", True),
        ("pip install amd-aiter", False),
        ("`pip install amd-aiter`, imported as aiter", False),
        ('pip install "preshuffle[aiter]"', False),
        ("pip install --force-reinstall --no-deps amd-aiter && echo aiter", False),
    ],
)
def test_the_install_rule_tells_them_apart(text: str, caught: bool) -> None:
    assert bool(INSTALLS_STRANGER.search(text)) is caught
