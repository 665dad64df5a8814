"""`--server`: the command line asks a running service, and says so where the own book answered instead."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.service.server import OBSERVATION, environment, running_server

RESOLVE = ("resolve", "--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "fp4x2", "--json")


def preshuffle(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "preshuffle.api.cli", *words]
    return subprocess.run(command, env=environment(), input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    overlay = folder / "book.yaml"
    overlay.write_text(
        "rules:\n  mine:\n    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, tp: 1, ep: 1}\n"
        "    use: mxfp4.gui16\n    priority: 1\n    because: a test\n"
    )
    with running_server(folder / "store.db", "--book", str(overlay)) as server:
        yield server.url


def test_the_service_answers_from_its_own_book(url: str) -> None:
    answered = preshuffle(*RESOLVE, "--server", url)
    assert answered.stderr == ""
    assert json.loads(answered.stdout)["rule"] == "mine"
    assert json.loads(preshuffle(*RESOLVE).stdout)["rule"] == "gpt-oss.a4w4.gfx950"


def test_the_own_book_answers_where_the_service_is_away() -> None:
    answered = preshuffle(*RESOLVE, "--server", "http://127.0.0.1:9")
    assert answered.returncode == 0
    assert json.loads(answered.stdout)["rule"] == "gpt-oss.a4w4.gfx950"
    assert answered.stderr.count("\n") == 1
    assert "http://127.0.0.1:9 does not answer" in answered.stderr
    assert "the embedded book answers" in answered.stderr


def test_check_asks_too(url: str) -> None:
    wrong = json.loads(json.dumps(OBSERVATION))
    wrong["applied"]["tensors"]["w13_weight"]["layout"] = "gui16"
    answered = preshuffle("check", "-", "--json", "--server", url, stdin=json.dumps(wrong))
    assert answered.returncode == 1
    assert json.loads(answered.stdout)["verdict"] == "mismatch"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--server", "http://127.0.0.1:9", "--book", "x"), "--server uses the service's own book"),
        (("--server", "nonsense"), "nonsense"),
    ],
)
def test_what_does_not_go_together_is_one_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    overlay = tmp_path / "x"
    overlay.mkdir()
    (overlay / "b.yaml").write_text("models: {}\n")
    answered = preshuffle(*RESOLVE, *(str(overlay) if word == "x" else word for word in words))
    assert said in answered.stderr
    assert "Traceback" not in answered.stderr
