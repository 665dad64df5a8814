"""Completion scripts, used by a real shell."""

import shutil
import subprocess
import sys

import pytest

from preshuffle.api.commands import COMMANDS
from preshuffle.api.commands.completion import SHELLS


def script(shell: str) -> str:
    command = [sys.executable, "-m", "preshuffle.api.cli", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_bash_completes_commands_options_and_their_choices() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    ask = """
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_preshuffle; echo "${COMPREPLY[*]}"; }
complete_words preshuffle res
complete_words preshuffle resolve --activation-d
complete_words preshuffle token ops --role ""
complete_words preshuffle kernels pre
"""
    ended = subprocess.run(["bash"], input=script("bash") + ask, capture_output=True, text=True, check=True)
    commands, options, choices, sub = ended.stdout.splitlines()[-4:]
    assert commands == "resolve"
    assert options == "--activation-dtype"
    assert {"report", "admin"} <= set(choices.split())
    assert sub == "predict"


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell != "bash"])
def test_every_command_is_in_every_script(shell: str) -> None:
    text = script(shell)
    assert all(name in text for name in COMMANDS)
