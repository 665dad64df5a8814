"""One reader who runs a page's examples from top to bottom, in one folder."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from support.docs.blocks import RUNNABLE, Block
from support.service.server import Server, running_server

WIDTH = 84
"""Columns of the terminal whose output the pages show."""
LEFT_OUT = "…"
_PORT = "8080"


@dataclass
class Session:
    """A shell and a Python interpreter in a folder.

    Commands of ``preshuffle`` run in this process, a service in one of its own on a free port, all others in a shell.

    Attributes:
        names: of the interpreter; a page's programs follow each other.
        servers: those that the page has started.
        replaced: texts of the page for which this machine has others.
    """

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    servers: list[Server] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def run(self, blocks: Iterable[Block]) -> None:
        """Run every block that can be run, and compare what is shown with what is printed."""
        printed = ""
        for block in blocks:
            if name := block.note("file"):
                (self.folder / name).write_text(block.text, encoding="utf-8")
            elif block.note("prints") is not None:
                compare(block, block.text, printed)
            elif block.language in RUNNABLE and block.note("not run") is None:
                printed = self._program(block) if block.language == "python" else self._commands(block)

    def _program(self, block: Block) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(self._here(block.text), str(block), "exec"), self.names)
        return printed.getvalue()

    def _commands(self, block: Block) -> str:
        ends_with = int(block.note("ends with") or 0)
        printed = ""
        for command, shown in commands(block):
            printed, code = self._command(self._here(command))
            assert code == ends_with, f"{block}: {command} ended with {code}: {printed[-1000:]}"
            if shown:
                compare(block, shown, printed)
        return printed

    def _command(self, command: str) -> tuple[str, int]:
        words = shlex.split(command, comments=True)
        if words[:2] == ["preshuffle", "serve"] and words[-1] == "&":
            store = words[words.index("--db") + 1].removeprefix("sqlite:///")
            self.servers.append(self.stack.enter_context(running_server(self.folder / store)))
            return "", 0
        if words[0] != "preshuffle":
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
            return done.stdout or done.stderr, done.returncode
        words, _, target = (words[: words.index(">")], ">", words[-1]) if ">" in words else (words, "", "")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed if not target else io.StringIO()):
            code = main(words[1:])
        if target:
            (self.folder / target).write_text(printed.getvalue(), encoding="utf-8")
            return "", code
        return printed.getvalue(), code

    def _here(self, text: str) -> str:
        """Lead what a text says to the service's usual port to the running one, and replace what is another here."""
        for said, meant in self.replaced.items():
            text = text.replace(said, meant)
        return text.replace(f"127.0.0.1:{_PORT}", self.servers[-1].url.partition("//")[2]) if self.servers else text


@contextlib.contextmanager
def session(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Open a session in a folder, without what this machine's environment says to preshuffle."""
    for name in [name for name in os.environ if name.startswith("PRESHUFFLE_")]:
        patch.delenv(name)
    patch.setenv("PRESHUFFLE_SERVICE_SPOOL", "off")
    patch.setenv("COLUMNS", str(WIDTH))
    patch.chdir(folder)
    opened = Session(folder)
    with opened.stack:
        yield opened


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a block with what is shown after each, continued lines joined."""
    lines = re.sub(r"\\\n *", "", block.text)
    if block.language == "sh":
        yield from ((line, "") for line in lines.splitlines() if line.strip() and not line.startswith("#"))
        return
    for part in re.split(r"^\$ ", lines, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def compare(block: Block, shown: str, printed: str) -> None:
    """Compare what a page shows with what was printed, line by line.

    ``…`` stands for any text of a line, and alone on a line for any number of lines.
    """
    wanted = "".join(
        r"(?:.*\n)*?" if line.strip() == LEFT_OUT else r".*?".join(map(re.escape, line.split(LEFT_OUT))) + r"\s*?\n"
        for line in shown.splitlines()
    )
    lines = "\n".join(line.rstrip() for line in printed.splitlines()) + "\n"
    assert re.fullmatch(wanted, lines), f"{block} shows\n{shown}\nbut this is printed:\n{printed}"
