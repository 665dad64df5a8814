"""Completion scripts, used by real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from preshuffle.api.cli import main
from preshuffle.api.commands import COMMANDS
from preshuffle.api.commands.completion import SHELLS
from preshuffle.api.commands.completion.shells import completion_lines, join_broken

ZSH_PROBE = """
_describe() { local name=$2; print -rl -- "${(@)${(P)name}%%:*}"; }
_files() { print FILES; }
complete_words() { local -a words=("$@"); local CURRENT=$#; _preshuffle; }
"""


@cache
def script(shell: str) -> str:
    command = [sys.executable, "-m", "preshuffle.api.cli", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def quoted(words: Sequence[str]) -> str:
    return " ".join(f"'{word}'" for word in words)


def with_bash(words: Sequence[str], folder: Path) -> list[str]:
    line = (
        f"COMP_WORDS=({quoted(words)}); COMP_CWORD={len(words) - 1}; _preshuffle; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    return run(["bash"], script("bash") + line, folder)


def with_zsh(words: Sequence[str], folder: Path) -> list[str]:
    return run(["zsh", "-f"], script("zsh") + ZSH_PROBE + f"complete_words {quoted(words)}", folder)


def with_fish(words: Sequence[str], folder: Path) -> list[str]:
    line = f"complete -C '{' '.join(words)}'"
    return [found.split("\t")[0] for found in run(["fish", "--no-config"], script("fish") + line, folder)]


def run(shell: list[str], text: str, folder: Path) -> list[str]:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} here")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRESHUFFLE_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(shell, input=text, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line]


WITH = {"bash": with_bash, "zsh": with_zsh, "fish": with_fish}
CASES = [
    (["reso"], {"resolve"}, True),
    (["res"], {"resolve", "restore"}, True),
    (["kernels", "pre"], {"predict"}, True),
    (["resolve", "--activation-d"], {"--activation-dtype"}, True),
    (["token", "ops", "--role", ""], {"report", "admin"}, True),
    (["resolve", "--arch", "MI35"], {"MI350X", "MI355X"}, True),
    (["resolve", "--arch", "gfx94"], {"gfx942"}, True),
    (["resolve", "--model", "openai/"], {"openai/gpt-oss-120b", "openai/gpt-oss-20b"}, True),
    (["kernels", "coverage", "openai/gpt-oss-1"], {"openai/gpt-oss-120b"}, True),
    (["resolve", "--engine", "vl"], {"vllm"}, False),
    (["resolve", "--activation-dtype", "fp"], {"fp16", "fp8", "fp4x2"}, True),
    (["check", "--explain", "tag_"], {"tag_lost"}, False),
    (["layouts", "show", "e8"], {"e8", "e8_gui16"}, True),
    (["registry", "show", "recipes", "mxfp4.gui16.g"], {"mxfp4.gui16.gfx942"}, False),
    (["identify", "--role", "w13_w"], {"w13_weight", "w13_weight_scale"}, True),
    (["deployments", "--state", "unk"], {"unknown"}, True),
    (["completion", "f"], {"fish"}, True),
]


@pytest.mark.parametrize("shell", WITH)
@pytest.mark.parametrize(
    ("words", "expected", "all_of_them"), CASES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_shell_completes(shell: str, words: list[str], expected: set[str], all_of_them: bool, tmp_path: Path) -> None:
    found = set(WITH[shell](["preshuffle", *words], tmp_path))
    assert found == expected if all_of_them else expected <= found


@pytest.mark.parametrize("shell", WITH)
def test_files_are_completed_where_nothing_is_known(shell: str, tmp_path: Path) -> None:
    (tmp_path / "observation.json").write_text("{}")
    found = WITH[shell](["preshuffle", "check", "obs"], tmp_path)
    assert found == {"bash": [], "zsh": ["FILES"], "fish": ["observation.json"]}[shell]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_a_candidate(shell: str) -> None:
    words = ["preshuffle "] if shell == "tcsh" else [""]
    assert {line.split("\t")[0] for line in completion_lines(shell, words)} == {*COMMANDS, "--help", "--version"}


@pytest.mark.parametrize(
    ("words", "joined", "candidates"),
    [
        (["resolve", "--engine", "vllm", "@"], "vllm@", ["0.33.0"]),
        (["resolve", "--engine", "vllm", "@", "0.3"], "vllm@0.3", ["0.33.0"]),
        (["resolve", "--arch", "=", "MI35"], "--arch=MI35", ["MI350X", "MI355X"]),
        (["resolve", "--arch", "="], "--arch=", ["gfx942"]),
    ],
)
def test_bash_cuts_words_and_gets_the_rest_of_them(words: list[str], joined: str, candidates: list[str]) -> None:
    assert join_broken(words)[-1] == joined
    assert set(candidates) <= set(completion_lines("bash", words))


def test_other_shells_take_whole_words() -> None:
    assert "vllm@0.33.0\t" in completion_lines("fish", ["resolve", "--engine", "vllm@"])
    assert "--arch=MI355X\tgfx950" in completion_lines("zsh", ["resolve", "--arch=MI355"])
    assert completion_lines("tcsh", ["preshuffle resolve --arch MI355"]) == ["MI355X"]


def test_the_book_of_the_line_is_asked(tmp_path: Path) -> None:
    assert main(["registry", "new", "layout", "mine32", "-o", str(tmp_path / "own.yaml")]) == 0
    words = ["layouts", "show", "--book", str(tmp_path / "own.yaml"), "min"]
    assert [line.split("\t")[0] for line in completion_lines("zsh", words)] == ["mine32"]
    assert completion_lines("zsh", ["layouts", "show", "--book", str(tmp_path / "none.yaml"), "min"]) == []


@pytest.mark.parametrize(
    "words", [["nosuch", ""], ["resolve", "--nosuch=", ""], ["resolve", "--nosuch=x"], ["doctor", "x"]]
)
def test_nothing_is_known_of_what_does_not_exist(words: list[str]) -> None:
    assert completion_lines("bash", words) == []
