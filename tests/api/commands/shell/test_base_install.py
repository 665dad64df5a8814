"""The base installation: what needs an extra says which, and everything else works without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from preshuffle.api.commands import COMMANDS, EXTRAS

PROGRAM = """
import sys
EXTRAS = {"torch", "safetensors", "fastapi", "starlette", "uvicorn", "httptools", "uvloop", "prometheus_client",
          "sqlalchemy", "alembic", "jinja2", "markupsafe", "httpx", "anyio", "psycopg", "numpy", "tinygrad", "shtab"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from preshuffle.api.cli import main
sys.exit(main())
"""
QUERY = ["--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "fp4x2"]
AWAY = ["--server", "http://127.0.0.1:9"]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "file").write_bytes(b"x")
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["deployments", *AWAY], "service"),
        (["deployments", "prod-a", "--db", "sqlite:///none.db"], "service"),
        (["plan", "--aiter", "0.1.20", *AWAY], "client"),
        (["serve"], "service"),
        (["token", "ops", "--role", "admin"], "service"),
        (["resolve", *QUERY, *AWAY], "client"),
        (["identify", "--plain", "file", "--live", "file"], "layouts"),
        (["probe"], "layouts"),
        (["conform"], "layouts"),
        (["derive", "fmoe_bf16_pertokenMXfp4_g1u1_novs_silu_2tg_32x256"], "proofs"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_what_needs_an_extra_says_which(tmp_path: Path, arguments: list[str], extra: str) -> None:
    done = run(tmp_path, *arguments, "--json")
    assert done.returncode == 2
    assert done.stderr.startswith("preshuffle: ")
    assert f'pip install "preshuffle[{extra}]"' in done.stderr
    problem = json.loads(done.stdout)
    assert (problem["type"], problem["exit_code"]) == ("urn:preshuffle:problem:missing-extra", 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["resolve", *QUERY],
        ["explain", *QUERY],
        ["check", "--explain", "tag_lost"],
        ["layouts", "list"],
        ["kernels", "predict", *QUERY],
        ["registry", "schema", "replica-report"],
        ["registry", "new", "recipe"],
        ["doctor"],
        ["completion", "bash"],
    ],
    ids=lambda value: value[0],
)
def test_the_others_work_without_one(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_needs_no_extra(tmp_path: Path) -> None:
    program = PROGRAM.replace("sys.exit(main())", "sys.exit(max(main([name, '--help']) for name in sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", program, *COMMANDS], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert set(EXTRAS) <= set(COMMANDS)


def test_files_are_looked_at_before_torch_is_imported(tmp_path: Path) -> None:
    for plain, live, named in (("none", "file", "--plain none"), ("file", "none", "--live none")):
        done = run(tmp_path, "identify", "--plain", plain, "--live", live)
        assert (done.returncode, done.stderr) == (
            2,
            f"preshuffle: {named}: cannot be read: No such file or directory\n",
        )
    done = run(tmp_path, "identify", "--plain", "file", "--live", "file", "--shape", "4x4")
    assert "valid: E,ROWS,K" in done.stderr
