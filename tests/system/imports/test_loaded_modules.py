"""Modules that an import or a command loads: what is slow to import stays out until it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = frozenset({"fastapi", "starlette", "uvicorn", "sqlalchemy", "httpx", "jinja2", "torch", "numpy"})
"""What `preshuffle resolve` never needs."""

NOT_YET = HEAVY | {"pydantic", "einops", "packaging", "yaml"}
"""What `import preshuffle.registry` leaves to the first use of one of its names."""

RESOLVE = """
from preshuffle.api.cli import main
main(["resolve", "--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "fp4x2", "--json"])
"""


def loaded_by(code: str) -> set[str]:
    """Return the top-level names of the modules that a fresh interpreter has after running some code."""
    names = "import sys; print(*{name.partition('.')[0] for name in sys.modules}, sep=' ', file=sys.stderr)"
    command = [sys.executable, "-c", f"{code}\n{names}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import preshuffle", NOT_YET),
        ("import preshuffle.registry", NOT_YET),
        ("from preshuffle.registry import Registry", HEAVY | {"packaging"}),
        ("import preshuffle.api.cli", NOT_YET),
        ("import preshuffle.api.client", HEAVY - {"httpx"}),
        (RESOLVE, HEAVY),
    ],
    ids=["preshuffle", "registry", "Registry", "cli", "client", "resolve"],
)
def test_nothing_slow_is_imported_before_it_is_needed(code: str, unwanted: frozenset[str]) -> None:
    found = loaded_by(code)
    assert "preshuffle" in found
    assert found & unwanted == set()


def test_the_client_leaves_the_registrys_work_to_those_who_need_it() -> None:
    code = "import preshuffle.api.client, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    rooms = {name.split(".")[2] for name in done.stdout.split() if name.startswith("preshuffle.registry.")}
    assert rooms == {"base", "kernels", "text", "values"}
