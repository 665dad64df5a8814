"""Architecture: rooms in their order, no circle, small folders, names used once.

The import graph counts every import: at module level, inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from support.source.import_graph import circles, imports_within
from support.source.modules import SourceModule, modules_below, modules_of
from support.source.rooms import (
    Order,
    against_order,
    classes_named_twice,
    full_folders,
    past_the_face,
    shadowed_names,
)

ROOT = Path(__file__).parents[2]
TOPS = ("registry", "layouts", "api")
LONGEST = 350
MOST_MODULES = 14

# Lowest first: a room imports only rooms before it. Rooms of an inner tuple do not import each other.
# "" are the modules that lie directly in the top folder and have no row of their own.
ORDER: Order = {
    "registry": (
        *("base", "text", "algebra", "kernels", "values", "entries", "loading", "layer", "resolve"),
        *(("hf", "lint"), "check", "", "reach", "overlaid", "incidents", "launch", "matrix"),
    ),
    "layouts": (
        "tensors",
        "moves",
        "stamps",
        "checkpoint",
        "loader",
        "calls",
        "forensics",
        "proof",
        "probe",
        "engines",
        "laid_out",
        "emulator",
        "derive",
        "conform",
        "",
    ),
    # `commands` sit near the top because they start the app and use the client.
    "api": (
        *("", "errors", "variables", "log_lines", "fleet", "web", "settings", "table_files", "overlay_files"),
        *("store", "answers", "upkeep", "notify", "rollout", "server"),
        *("routes", "pages", "doctor", "client", "app", "commands", "cli"),
    ),
}

OPEN_ROOMS = {"preshuffle.registry.base", "preshuffle.registry.values", "preshuffle.registry.algebra"}
"""Rooms whose modules every other room may import directly."""

ROOMS_OF_MODULES = {"preshuffle.api.routes", "preshuffle.api.pages", "preshuffle.api.commands"}
"""Rooms that offer modules instead of names: ``from preshuffle.api.routes import books``."""


@pytest.fixture(scope="module")
def modules() -> Mapping[str, SourceModule]:
    return modules_below(ROOT, *TOPS)


def python_files() -> list[Path]:
    folders = ("preshuffle", *TOPS, "tests", "bench")
    paths = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [*paths, *(path.relative_to(ROOT) for path in ROOT.glob("*.py"))]


def test_no_modules_import_each_other_in_a_circle(modules: Mapping[str, SourceModule]) -> None:
    assert circles(imports_within(modules)) == []


def test_imports_run_from_a_later_room_to_an_earlier_one(modules: Mapping[str, SourceModule]) -> None:
    assert list(against_order(imports_within(modules), ORDER)) == []


def test_every_row_of_the_order_is_a_room(modules: Mapping[str, SourceModule]) -> None:
    rows = [(top, row) for top, names in ORDER.items() for row in names]
    rooms = [(top, name) for top, row in rows for name in ((row,) if isinstance(row, str) else row)]
    faces = [f"preshuffle.{top}.{name}".removesuffix(".") for top, name in rooms]
    assert len(set(faces)) == len(faces)
    assert [face for face in faces if face not in modules] == []


def test_other_rooms_are_imported_by_their_faces(modules: Mapping[str, SourceModule]) -> None:
    assert list(past_the_face(imports_within(modules), ORDER, OPEN_ROOMS, ROOMS_OF_MODULES)) == []


def test_no_folder_holds_too_many_modules() -> None:
    assert full_folders(python_files(), MOST_MODULES) == {}


def test_no_file_is_too_long() -> None:
    lines = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_no_public_class_name_is_used_twice_below_one_top_folder(modules: Mapping[str, SourceModule]) -> None:
    assert classes_named_twice(modules) == {}


def test_no_name_of_a_package_is_replaced_by_its_submodule(modules: Mapping[str, SourceModule]) -> None:
    assert list(shadowed_names(modules)) == []


LOW, HIGH = "registry/base/low.py", "registry/check/high.py"


@pytest.mark.parametrize(
    "text",
    [
        "from preshuffle.registry.base import other",
        "import preshuffle.registry.base.other",
        "from preshuffle.registry.base.other import name",
        "def f():\n    from preshuffle.registry.base.other import name",
        "if TYPE_CHECKING:\n    from preshuffle.registry.base.other import name",
    ],
)
def test_a_circle_is_seen(text: str) -> None:
    found = modules_of({LOW: text, "registry/base/other.py": "from preshuffle.registry.base.low import name"})
    assert circles(imports_within(found)) == [["preshuffle.registry.base.low", "preshuffle.registry.base.other"]]


def test_a_circle_through_a_face_is_seen() -> None:
    face = "from preshuffle.registry.check.high import name"
    found = modules_of({"registry/check/__init__.py": face, HIGH: "from preshuffle.registry.check import name"})
    assert circles(imports_within(found)) == [["preshuffle.registry.check", "preshuffle.registry.check.high"]]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({LOW: "def f():\n    import preshuffle.registry.check.high", HIGH: ""}, "base is below or beside check"),
        ({LOW: "if TYPE_CHECKING:\n    from preshuffle.registry.check import high", HIGH: ""}, "below or beside"),
        (
            {LOW: "from preshuffle.registry import Query", "registry/__init__.py": ""},
            "base is below or beside registry",
        ),
        ({"registry/hf/a.py": "from preshuffle.registry.lint import b", "registry/lint/b.py": ""}, "hf is below or be"),
        ({"api/app.py": "from preshuffle.api.cli import main", "api/cli.py": ""}, "app is below or beside cli"),
        ({"registry/attic/a.py": "from preshuffle.registry.base import low", LOW: ""}, "no row for preshuffle.reg"),
    ],
)
def test_an_import_against_the_order_is_seen(files: dict[str, str], complaint: str) -> None:
    (found,) = against_order(imports_within(modules_of(files)), ORDER)
    assert complaint in found


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({LOW: "", HIGH: "from preshuffle.registry.base.low import name"}, None),
        ({"api/app.py": "from preshuffle.registry.base import low", LOW: ""}, None),
        ({"api/app.py": "from preshuffle.registry.check.high import name", HIGH: ""}, "registry.check is its face"),
        ({"api/app.py": "from preshuffle.registry.check import high", HIGH: ""}, "registry.check is its face"),
        ({"api/pages/a.py": "from preshuffle.api.routes import b", "api/routes/b.py": ""}, None),
        ({"api/pages/a.py": "from preshuffle.api.routes.b import name", "api/routes/b.py": ""}, "routes is its face"),
        (
            {
                "api/app.py": "from preshuffle.registry.check import high",
                "registry/check/__init__.py": "from preshuffle.registry.check import high",
                HIGH: "",
            },
            None,
        ),
        (
            {
                "layouts/proof/a.py": "from preshuffle.registry.registry import Registry",
                "registry/registry.py": "",
            },
            "preshuffle.registry is its face",
        ),
    ],
)
def test_an_import_past_a_face_is_seen(files: dict[str, str], complaint: str | None) -> None:
    found = list(past_the_face(imports_within(modules_of(files)), ORDER, OPEN_ROOMS, ROOMS_OF_MODULES))
    assert len(found) == (complaint is not None)
    assert all(str(complaint) in each for each in found)


def test_a_full_folder_is_seen() -> None:
    paths = [Path("registry/base/__init__.py"), *(Path(f"registry/base/m{number}.py") for number in range(15))]
    assert full_folders(paths, MOST_MODULES) == {"registry/base": 15}
    assert full_folders(paths[:-1], MOST_MODULES) == {}


def test_a_class_name_used_twice_is_seen() -> None:
    text = "class Rule: ...\nclass _Own: ..."
    found = modules_of({LOW: text, HIGH: text, "api/app.py": text})
    assert classes_named_twice(found) == {
        "registry: Rule": ["preshuffle.registry.base.low", "preshuffle.registry.check.high"]
    }


@pytest.mark.parametrize(
    ("text", "seen"),
    [("def high(): ...", True), ("from preshuffle.registry.check.high import high", False), ("def low(): ...", False)],
)
def test_a_name_that_a_submodule_replaces_is_seen(text: str, seen: bool) -> None:
    assert bool(list(shadowed_names(modules_of({"registry/check/__init__.py": text, HIGH: ""})))) is seen
