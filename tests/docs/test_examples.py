"""Examples of the documentation: each is run, or says why it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from preshuffle.api.store import Store
from preshuffle.layouts import write_checkpoint
from support.docs.blocks import PAGES, ROOT, RUNNABLE, Block, blocks
from support.docs.patches import is_patch
from support.docs.session import Session, compare, session
from support.tensors.laid_out import GPT_OSS
from support.tensors.live_ranks import live
from support.tensors.moe import hf_config

ELSEWHERE = {
    "README.md": "test_readme.py",
    "docs/own-kernel.md": "test_overlay.py",
    "docs/report.md": "test_report.py",
}
"""Pages that a test of their own runs."""
REASONS = ("needs ", "installs ", "changes ", "builds ", "takes ")
"""How a reason for not running an example begins."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_is_run_or_says_why_not(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    for block in blocks(page):
        reason = block.note("not run")
        if reason is not None:
            assert reason.startswith(REASONS), f"{block}: {reason}"
        elif block.language in RUNNABLE and not is_patch(block):
            assert name in RUN_HERE or name in ELSEWHERE, f"{block} is run by no test"


def test_other_tests_are_there() -> None:
    assert {name for name in ELSEWHERE.values() if not (Path(__file__).parent / name).is_file()} == set()


def nothing(reader: Session, patch: pytest.MonkeyPatch) -> None:
    """A page that brings all that it needs."""


def an_engine(reader: Session, patch: pytest.MonkeyPatch) -> None:
    """A live layer of vLLM's on an MI355X with its checkpoint, and an AITER."""
    layer, _, decision = live("vllm")
    sizes = {"hidden_size": 160, "intermediate_size": 512}
    write_checkpoint(reader.folder / "model", {**hf_config(layers=4), **sizes})
    names = {"layer": layer, "folder": "model", "kwargs_of_fused_moe": decision.call.kwargs("aiter.fused_moe")}
    config = SimpleNamespace(model_config=SimpleNamespace(model="openai/gpt-oss-120b"))
    reader.names.update(names, vllm_config=config)
    patch.setattr("preshuffle.layouts.observe_here", lambda: {"arch": "gfx950", "activation_dtype": "bf16"})
    aiter, module = ModuleType("aiter"), ModuleType("aiter.fused_moe")
    vars(module)["fused_moe"] = lambda hidden_states, w1, w2, topk_weight, topk_ids: hidden_states
    vars(aiter)["fused_moe"] = module
    patch.setitem(sys.modules, "aiter", aiter)
    patch.setitem(sys.modules, "aiter.fused_moe", module)


def a_checkpoint(reader: Session, patch: pytest.MonkeyPatch) -> None:
    """A small checkpoint, and no GPU to open it on."""
    write_checkpoint(reader.folder / "checkpoint", GPT_OSS)
    reader.replaced[', device="cuda"'] = ""


def a_store(reader: Session, patch: pytest.MonkeyPatch) -> None:
    """The store of a service that does not run."""
    Store(f"sqlite:///{reader.folder / 'fleet.db'}").create().close()


RUN_HERE = {
    "docs/tutorial.md": nothing,
    "docs/backup.md": a_store,
    "docs/roll-out.md": nothing,
    "docs/embed.md": an_engine,
    "docs/extending.md": nothing,
    "docs/laid-out.md": a_checkpoint,
}
"""Pages that are run here, with what they take for granted."""
LONG = ("docs/extending.md",)
"""Of these, those that take seconds: CI runs them apart (``make soak ARGS=tests/docs``)."""


@pytest.mark.parametrize(
    "name",
    [*(name for name in RUN_HERE if name not in LONG), *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)],
)
def test_a_page_runs_as_it_is_pasted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with session(tmp_path, monkeypatch) as reader:
        RUN_HERE[name](reader, monkeypatch)
        reader.run(blocks(ROOT / name))


@pytest.mark.parametrize(
    ("shown", "printed", "right"),
    [
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\n", "a\n", True),
        ("key …, tail\n", "key sha256:1, tail\n", True),
        ("a\n", "a\nb\n", False),
        ("a\nc\n", "a\nb\n", False),
        ("…b\n", "a\n", False),
    ],
)
def test_what_is_shown_is_compared_line_by_line(shown: str, printed: str, right: bool) -> None:
    block = Block("page.md", 1, "console", "", ("", ""))
    if right:
        compare(block, shown, printed)
        return
    with pytest.raises(AssertionError, match=r"page\.md:1 shows"):
        compare(block, shown, printed)
