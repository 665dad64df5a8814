"""Processes that work on the same bytes: one wins, and none hangs or claims what is not there."""

from __future__ import annotations

import threading
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, inverse, stamp_of
from preshuffle.registry import LayoutError
from support.tensors.padded_layer import DECISION, Tensors, own_storage_layer, raw

PROCESSES = 3


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """A forked process cannot use the threads that its parent's torch had."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mapped(folder: Path) -> Tensors:
    return {
        role: torch.from_file(str(folder / role), shared=True, size=tensor.numel(), dtype=tensor.dtype).view(
            tensor.shape
        )
        for role, tensor in own_storage_layer().items()
    }


def apply_at_once(folder: Path, gate: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    tensors = mapped(folder)
    gate.wait(300)
    try:
        apply(tensors, DECISION)
        answers.put("")
    except LayoutError as error:
        answers.put(str(error))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_one_process_wins(start: Any, tmp_path: Path) -> None:
    apply(wanted := own_storage_layer(), DECISION)
    for role, tensor in own_storage_layer().items():
        (tmp_path / role).write_bytes(raw(tensor).numpy().tobytes())
    context = get_context(start)
    gate, answers = context.Barrier(PROCESSES), context.Queue()
    children = [context.Process(target=apply_at_once, args=(tmp_path, gate, answers)) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    found = sorted(answers.get(timeout=600) for _ in children)
    for child in children:
        child.join(60)
    assert found[0] == ""
    assert all("laid out already" in answer for answer in found[1:])
    for role, tensor in mapped(tmp_path).items():
        assert raw(tensor).view(-1).equal(raw(wanted[role]).view(-1))
        assert stamp_of(tensor).state == "applied"  # type: ignore[union-attr]


def lay_out(answers: Any) -> None:
    apply(tensors := own_storage_layer(), DECISION)
    answers.put(stamp_of(tensors["w13_weight"]).state)  # type: ignore[union-attr]


def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            apply(tensors := own_storage_layer(), DECISION)
            inverse(tensors)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        context: Any = get_context("fork")
        for _ in range(12):
            answers = context.Queue()
            child = context.Process(target=lay_out, args=(answers,))
            child.start()
            child.join(60)
            hangs = child.is_alive()
            child.kill()
            assert not hangs
            assert answers.get(timeout=60) == "applied"
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
