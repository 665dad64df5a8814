"""What is shipped: the sdist, the wheel made from it, and what runs once it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = ("registry", "layouts", "api")
TOP = "preshuffle"
"""The folder of the package itself: its version, and what ``python -m preshuffle`` runs."""

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import preshuffle
names = [info.name for info in pkgutil.walk_packages(preshuffle.__path__, "preshuffle.")]
places = {importlib.import_module(name).__file__ for name in names}
print(len(names), sorted(place for place in places if not place.startswith(sys.prefix)))
"""


EDITABLE = f"""
import importlib, preshuffle
print(preshuffle.__version__)
for room in {ROOMS!r}:
    print(importlib.import_module("preshuffle." + room).__file__)
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command away from the checkout and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PRESHUFFLE_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shipped() -> list[str]:
    """Every file of the tree that is part of the wheel."""
    return [name for name in tree() if name.split("/")[0] in (TOP, *ROOMS)]


def tree() -> list[str]:
    """Every file that git knows or would add: what a fresh clone has."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = run("git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT)
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from a clean copy, then the wheel from the sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tree():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    assert len(list(out.glob("*.tar.gz"))) == 1
    return built


def fresh_venv(folder: Path) -> Path:
    """Make an environment that sees this one's packages, but not the editable install of the project."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "host.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and return the interpreter that has it."""
    folder = tmp_path_factory.mktemp("venv")
    python = fresh_venv(folder)
    pip_install(python, "--no-deps", wheel, cwd=folder)
    return python


def pip_install(python: Path, *what: str | Path, cwd: Path) -> None:
    command: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    command += ["--disable-pip-version-check", "install", "--no-index"]
    run(*command, *what, cwd=cwd)


def test_the_wheel_has_every_file_of_the_tree_and_no_other(wheel: Path) -> None:
    expected = {f"{TOP}/{name.removeprefix(f'{TOP}/')}" for name in shipped()}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {f"{TOP}/py.typed", *(f"{TOP}/{room}/py.typed" for room in ROOMS)} <= found


def test_the_sdist_has_the_same_modules(wheel: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    found = {name for name in inside if name.endswith(".py") and name.split("/")[0] in (TOP, *ROOMS)}
    assert found == {name for name in shipped() if name.endswith(".py")}


def test_every_module_of_the_wheel_imports(installed: Path, tmp_path: Path) -> None:
    count, outside = run(installed, "-c", IMPORT_EVERYTHING, cwd=tmp_path).split(maxsplit=1)
    modules = [name for name in shipped() if name.endswith(".py") and name != f"{TOP}/__init__.py"]
    assert outside.strip() == "[]"
    assert int(count) == len(modules)


def test_the_installed_package_is_found_in_the_clone(installed: Path) -> None:
    found = run(installed, "-c", "import preshuffle.layouts.moves as found; print(found.__file__)", cwd=ROOT)
    assert Path(found.strip()).is_relative_to(installed.parents[1])
    assert "usage: preshuffle" in run(installed, "-m", "preshuffle", "--help", cwd=ROOT)


def test_the_command_runs(installed: Path, tmp_path: Path) -> None:
    command = installed.parent / "preshuffle"
    assert run(command, "--version", cwd=tmp_path) == f"preshuffle {PROJECT['project']['version']}\n"
    assert "the book loads" in run(command, "registry", "check", cwd=tmp_path)


def test_the_package_runs_as_a_module(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, "-m", "preshuffle", "resolve", *QUERY, "--json", cwd=tmp_path)
    assert json.loads(shown)["recipe"] == "mxfp4.sep16"


def test_the_version_stands_in_pyproject_alone(installed: Path, tmp_path: Path) -> None:
    version = PROJECT["project"]["version"]
    assert run(installed, "-c", "import preshuffle; print(preshuffle.__version__)", cwd=tmp_path) == f"{version}\n"
    assert [name for name in shipped() if name.endswith(".py") and version in (ROOT / name).read_text()] == []


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import preshuffle

    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        preshuffle.colour  # noqa: B018


def test_an_editable_installation_has_every_room(tmp_path: Path) -> None:
    python = fresh_venv(tmp_path / "venv")
    pip_install(python, "--no-deps", "--no-build-isolation", "--editable", ROOT, cwd=tmp_path)
    shown = run(python, "-c", EDITABLE, cwd=tmp_path).splitlines()
    assert shown == [PROJECT["project"]["version"], *(str(ROOT / room / "__init__.py") for room in ROOMS)]
    assert "the book loads" in run(python, "-m", "preshuffle", "registry", "check", cwd=tmp_path)


def test_the_licence_is_shipped(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_every_package_of_the_tree_is_declared() -> None:
    declared = PROJECT["tool"]["setuptools"]
    folders = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(declared["packages"]) == {TOP, *(f"{TOP}.{folder}" for folder in folders)}
    assert declared["package-dir"] == {TOP: TOP, **{f"{TOP}.{room}": room for room in ROOMS}}


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from preshuffle.api.cli import main
sys.exit(main({arguments!r}))
"""
EXTRAS = frozenset(
    "torch safetensors numpy triton aiter fastapi starlette uvicorn sqlalchemy jinja2 markupsafe httpx anyio".split()
)
QUERY = ["--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "fp4x2"]


def without_extras(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    text = BLOCKED.format(names=set(EXTRAS), arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", text], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["resolve", *QUERY, "--json"],
        ["explain", *QUERY],
        ["layouts", "show", "gui16", "--shape", "2,64,64"],
        ["registry", "check"],
        ["registry", "schema"],
        ["doctor"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_the_base_installation_is_enough(arguments: list[str], tmp_path: Path) -> None:
    done = without_extras(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


REPORT = """
from preshuffle.api.client import Client, Reporter, ServiceSettings
from preshuffle.registry import Observation, Query
query = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2")
settings = ServiceSettings(url="http://127.0.0.1:9", deployment="prod", spool="off")
with Reporter(settings=settings) as reporter, Client("http://127.0.0.1:9", quiet=True) as client:
    reply = reporter.report({0: Observation(query=query)}).raise_if("mismatch")
    print(reply.source, client.resolve(query).value.recipe)
"""


def test_the_extra_client_is_enough_to_report(tmp_path: Path) -> None:
    """Replays ``pip install preshuffle[client]``: what the extra needs is there, whatever else is here is not."""
    project = PROJECT["project"]
    needed, queue = set[str](), [*project["dependencies"], *project["optional-dependencies"]["client"]]
    while queue:
        requirement = Requirement(queue.pop())
        if requirement.name in needed:
            continue
        needed.add(requirement.name)
        extras = [*requirement.extras, ""]
        for line in metadata.requires(requirement.name) or ():
            other = Requirement(line)
            if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append(line)
    wanted = {normal(name) for name in needed} | {"preshuffle"}
    owners = metadata.packages_distributions().items()
    unwanted = {top for top, names in owners if not wanted & {normal(name) for name in names} and top.isidentifier()}
    assert {"fastapi", "sqlalchemy", "torch", "uvicorn", "jinja2"} <= unwanted
    blocked = BLOCKED.partition("from preshuffle")[0].format(names=unwanted)
    assert run(sys.executable, "-c", blocked + REPORT, cwd=tmp_path).split() == ["embedded", "mxfp4.sep16"]


def test_serving_names_the_extra_that_it_needs(tmp_path: Path) -> None:
    done = without_extras("serve", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert 'pip install "preshuffle[service]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_are_exact_and_the_same_on_every_machine() -> None:
    assert pins()["torch"] == "2.13.0"
    assert "--no-deps $(AITER) $(TRITON)" in (ROOT / "Makefile").read_text()
    for name, version in pins().items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        assert Version(version).local is None, f"{name}=={version} exists on some machines only"


def test_constraints_pin_everything_that_the_extras_pull_in() -> None:
    seen: dict[str, set[str]] = {}

    def walk(name: str, extras: set[str]) -> None:
        key = normal(name)
        if key in seen and extras <= seen[key]:
            return
        seen.setdefault(key, set()).update(extras)
        if key == "torch":  # its builds differ in what they bring: CUDA's libraries, a Triton of its own
            return
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {*extras, ""}):
                walk(needed.name, set(needed.extras))

    walk("preshuffle", {"dev"})
    assert set(seen) - {"preshuffle"} <= {normal(name) for name in pins()}


def test_constraints_satisfy_what_the_project_asks_for() -> None:
    pinned = {normal(name): version for name, version in pins().items()}
    project = PROJECT["project"]
    asked = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    for line in asked:
        needed = Requirement(line)
        if normal(needed.name) in pinned:
            assert needed.specifier.contains(pinned[normal(needed.name)]), line


def test_the_service_image_installs_what_its_stage_says(wheel: Path, tmp_path: Path) -> None:
    """Replays the stage's pip step; the host's packages stand for the index, so a version that differs fails."""
    python = fresh_venv(tmp_path / "venv")
    lock = (ROOT / "requirements" / "service.txt").read_text(encoding="utf-8")
    versions = tmp_path / "versions.txt"  # what is installed has no hashes
    versions.write_text(re.sub(r"\\\n\s+--hash=\S+ ?", "", lock), encoding="utf-8")
    pip_install(python, "-r", versions, cwd=tmp_path)
    pip_install(python, "--no-deps", wheel, cwd=tmp_path)
    assert run(python.parent / "preshuffle", "--version", cwd=tmp_path).startswith("preshuffle ")
