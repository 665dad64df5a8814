"""The README's Python and ``preshuffle`` commands run as they are pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from preshuffle.api.cli import main
from preshuffle.layouts import Checkpoint, apply, write_checkpoint
from preshuffle.registry import Registry
from support.aiter.kernel_rows import table
from support.tensors.moe import hf_config

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ELSEWHERE = re.compile(
    r"preshuffle (serve|deployments|plan|probe|token)"
    r"|--server|--aiter installed"
)
"""Commands that need a service, a GPU, an AITER or a module of the reader's; other tests run them."""
PLACEHOLDERS = {"DIR": "tables", "OLD@0.1.13": "tables@0.1.13", "NEW@0.1.20": "tables@0.1.20"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the commands of the console blocks, continued lines joined, remarks left out."""
    text = "\n".join(blocks("console")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ preshuffle ")]
    return [re.sub(r"\s+#.*", "", " ".join(line.split())) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the README's reader has: a checkpoint, a dump of its layer 3, a report, AITER's tables."""
    folder = tmp_path_factory.mktemp("reader")
    checkpoint: Checkpoint = write_checkpoint(folder / "checkpoint", hf_config(layers=4))
    registry = Registry.default()
    query = registry.query_from_hf_config(folder / "checkpoint", arch="gfx950", activation_dtype="fp4x2")
    for name, layer, tp, rank in (("dump", 3, 1, 0), ("rank1", 0, 2, 1)):
        split = query.altered(tp=tp)
        tensors = dict(checkpoint.rank(layer, split, tp_rank=rank))
        apply(tensors, registry.resolve(split), last_rank=rank > 0)
        save_file(tensors, folder / f"{name}.safetensors")
    (observation,) = blocks("json")
    (folder / "observation.json").write_text(observation)
    (folder / "tables").mkdir()
    (folder / "tables" / "tuned_fmoe.csv").write_bytes(table())
    return folder


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_the_python_runs(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, loading, client = blocks("python")
    names: dict[str, Any] = {}
    exec(first, names)
    shown = re.findall(r"^print\(.*?\)\s+# (.+)$", first, re.MULTILINE)
    for promised, printed in zip(shown, capsys.readouterr().out.splitlines(), strict=True):
        assert printed.startswith(promised.split(",")[0].rstrip(")"))
    exec(loading, names)
    assert capsys.readouterr().out == "sep16\n"
    exec(client.replace(":8080", ":9"), names)  # nothing listens there
    assert capsys.readouterr().out == "mxfp4.sep16 embedded\n"


def test_there_are_commands_of_every_kind() -> None:
    named = {command.split()[1] for command in commands()}
    assert {"resolve", "explain", "layouts", "kernels", "check", "identify", "probe", "plan", "doctor"} <= named


@pytest.mark.parametrize("command", [line for line in commands() if not ELSEWHERE.search(line)])
def test_a_command_runs(command: str, reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
    if "--tp-rank" in words:
        words[words.index("dump.safetensors")] = "rank1.safetensors"
    code = main(words)
    shown = capsys.readouterr()
    assert code in (0, 1), shown.err
    assert shown.err == ""
    assert shown.out
