"""Two threads on one target: one wins, the other is told; bytes are never laid out twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, apply_layout, begin_reload, finish_reload, inverse, relayout, stamp_of
from preshuffle.layouts.loader import AITER_TAG
from preshuffle.registry import LayoutError
from support.tensors.moe import decide
from support.tensors.padded_layer import DECISION, Tensors, plain_layer, raw

THREADS = 4


def at_once(works: list[Callable[[], object]]) -> list[object]:
    """Run works in threads that begin together; return what each returned or raised."""
    gate = threading.Barrier(len(works))
    found: list[object] = [None] * len(works)

    def run(number: int) -> None:
        gate.wait()
        try:
            found[number] = works[number]()
        except LayoutError as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return found


WANTED = plain_layer()
apply(WANTED, DECISION)


def same_dict(tensors: Tensors) -> Any:
    return tensors


def other_dict(tensors: Tensors) -> Any:
    return dict(tensors)


def under_numpy(tensors: Tensors) -> Any:
    return {
        role: torch.from_numpy(tensor.numpy()) if tensor.dtype == torch.uint8 else tensor
        for role, tensor in tensors.items()
    }


@pytest.mark.parametrize("each", [same_dict, other_dict, under_numpy])
@pytest.mark.parametrize("again", ["refuse", "skip"])
def test_one_thread_wins(each: Callable[[Tensors], Any], again: Any) -> None:
    for _ in range(5):
        tensors = plain_layer()
        tensors |= {role: tensor.float() for role, tensor in tensors.items() if role.endswith("bias")}
        targets = [each(tensors) for _ in range(THREADS)]
        found = at_once([lambda target=target: apply(target, DECISION, again=again) for target in targets])  # type: ignore[misc]
        errors = [one for one in found if isinstance(one, LayoutError)]
        assert len(errors) == (THREADS - 1 if again == "refuse" else 0)
        assert all("laid out already" in str(error) for error in errors)
        for role, tensor in tensors.items():
            assert raw(tensor).view(-1).equal(raw(WANTED[role]).view(-1))
            stamp = stamp_of(raw(tensor))
            assert stamp is not None
            assert stamp.state == "applied"
        if again == "skip":
            assert all(getattr(target["w13_weight"], AITER_TAG) for target in targets)


def test_inverse_and_relayout_are_done_once() -> None:
    for _ in range(5):
        apply(tensors := plain_layer(), DECISION)
        found = at_once([lambda: inverse(tensors)] * THREADS)
        assert sum(one is None for one in found) == 1
        assert all(raw(tensors[role]).equal(raw(plain_layer()[role])) for role in tensors)
        apply(tensors, DECISION)
        at_once([lambda: relayout(tensors, decide("bf16"))] * THREADS)
        inverse(tensors)
        assert all(raw(tensors[role]).equal(raw(plain_layer()[role])) for role in tensors)


def test_reloads_and_other_work_do_not_mix() -> None:
    apply(tensors := plain_layer(), DECISION)

    def reload() -> None:
        begin_reload(tensors)
        for role, tensor in plain_layer().items():
            raw(tensors[role].data).view(-1).copy_(raw(tensor.float() if "bias" in role else tensor).view(-1))
        finish_reload(tensors, DECISION)

    at_once([reload, lambda: apply(tensors, DECISION), lambda: inverse(tensors), lambda: apply(tensors, DECISION)])
    stamps = {role: stamp_of(tensor) for role, tensor in tensors.items()}
    if {stamp.state if stamp else None for stamp in stamps.values()} == {"applied"}:
        assert all(raw(tensors[role]).equal(raw(WANTED[role])) for role in tensors)


def test_different_layers_go_side_by_side_in_one_pool() -> None:
    sizes = [tensor.numel() for tensor in plain_layer().values() if tensor.dtype == torch.uint8]
    pool = torch.zeros(sum(sizes) * THREADS, dtype=torch.uint8)
    layers, at = [], 0
    for _ in range(THREADS):
        layer = plain_layer()
        for role, tensor in layer.items():
            if tensor.dtype == torch.uint8:
                layer[role] = pool[at : at + tensor.numel()].view(tensor.shape).copy_(tensor)
                at += tensor.numel()
        layers.append(layer)
    found = at_once([lambda layer=layer: apply(layer, DECISION) for layer in layers])  # type: ignore[misc]
    assert not [one for one in found if isinstance(one, LayoutError)]
    for layer in layers:
        assert all(raw(layer[role]).view(-1).equal(raw(WANTED[role]).view(-1)) for role in layer)
        assert {stamp.state if (stamp := stamp_of(tensor)) else None for tensor in layer.values()} == {"applied"}


def test_threads_write_one_out() -> None:
    plain = torch.randint(0, 256, (2, 64, 128), dtype=torch.uint8)
    out = torch.empty_like(plain)
    at_once([lambda: apply_layout(plain, "sep16", out=out)] * THREADS)
    assert out.equal(apply_layout(plain, "sep16"))
