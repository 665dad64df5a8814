"""The README from top to bottom: every command and every Python block runs as it is pasted, in a fresh clone.

Nothing is downloaded: pip finds the dependencies where this test's own environment has them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from preshuffle.api.fleet import parse_observed
from support.demo import assert_both_layouts_are_proven
from support.processes.machine import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BUILDER = str(Path(import_module("setuptools").__path__[0]).parent)
OFFLINE = {
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that there is none
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_COMPILE": "1",  # Python compiles the modules that commands import, and not all of them
    # packages of this environment count as installed, and its setuptools builds
    "PYTHONPATH": os.pathsep.join(dict.fromkeys((BUILDER, *(path for path in sys.path if path.endswith("-packages"))))),
}
CHANGES = "preshuffle kernels diff "
"""It ends with 1 where somebody gets something else, as the README says."""
ORDER = ("What it is", "Install, and a first answer", "The demo")


def commands(block: str) -> list[str]:
    """Return the commands of a console block, continued lines joined."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def script() -> str:
    """Return one shell session with everything that the README runs, in its order."""
    parts = ["set -m", 'ran() { [ "$1" -le "$2" ] || { echo "FAILED with $1: $3" >&2; exit 9; }; }']
    for language, block in FENCE.findall(README):
        if language == "console":
            for command in commands(block):
                most = int(command.startswith(CHANGES))
                parts += [f"echo {shlex.quote('## ' + command)}", command, f"ran $? {most} {shlex.quote(command)}"]
        elif language == "python":
            parts += ["echo '## python'", f"python - <<'END_OF_PYTHON'\n{block}END_OF_PYTHON", "ran $? 0 python"]
    return "\n".join(parts) + "\n"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clone the repository, with what is changed in it."""
    folder = tmp_path_factory.mktemp("reader") / "preshuffle"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def test_everything_runs_as_pasted_in_order(clone: Path) -> None:
    named = {name: value for name, value in os.environ.items() if not name.startswith(("PRESHUFFLE_", "VIRTUAL_ENV"))}
    environment = {**named, **OFFLINE, "PATH": f"{sys.base_prefix}/bin:{os.environ['PATH']}", "COLUMNS": "120"}
    text = script().replace(":8080", f":{free_port()}").replace("--port 8080", "--port 0")
    port = re.search(r"http://127\.0\.0\.1:(\d+)", text)
    assert port
    text = text.replace("--port 0", f"--port {port[1]}")
    done = subprocess.run(
        ["bash"], input=text, cwd=clone, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = done.stdout
    for promised in re.findall(r"^ *print\(.*?\)\s+# ([^,;:\n]+)", README, re.MULTILINE):
        assert promised.strip() in printed, promised
    proven = printed.partition("## make demo")[2].partition("\n## ")[0]
    assert_both_layouts_are_proven(proven, clone / ".demo")


def test_no_command_is_left_out() -> None:
    others = [block for language, block in FENCE.findall(README) if language not in ("console", "python")]
    assert [
        line for block in others for line in block.splitlines() if re.match(r"\$ |preshuffle |make |pip ", line)
    ] == []
    named = {words[1] for words in map(str.split, filter(None, script().splitlines())) if words[0] == "preshuffle"}
    expected = {"resolve", "explain", "layouts", "doctor", "kernels", "check", "identify", "derive", "probe"}
    assert expected | {"serve", "deployments", "plan", "registry"} <= named


def test_it_begins_with_what_it_is_then_an_answer_then_the_demo() -> None:
    titles = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert tuple(titles[:3]) == ORDER
    first = README.partition(f"## {ORDER[0]}")[2].partition("## ")[0]
    assert "![" in first
    rows = re.findall(r"^\| (?!word|---)(.+?) \| .+ \|$", first, re.MULTILINE)
    assert len(rows) == 12
    words = {word for row in rows for word in re.findall(r"[\w]+", row)}
    assert {"w13", "GGUU", "GUGU", "sep16", "gui16", "e8", "book", "recipe", "rule", "stamp"} <= words


def test_the_observation_that_it_shows_is_one() -> None:
    import json

    blocks = [json.loads(block) for language, block in FENCE.findall(README) if language == "json"]
    assert len(blocks) == 1
    assert parse_observed(blocks[0])
