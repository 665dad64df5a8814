"""``apply`` and ``inverse`` leave refused layers unchanged.

Layers that are laid out in part, no layers, and a lack of memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, apply_layout, begin_reload, inverse, stamp_of
from preshuffle.layouts.stamps.stamp import put_stamp
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, in_padded_buffers, plain_tensors


def test_what_holds_laid_out_bytes_in_part_is_not_laid_out_again() -> None:
    decision = decide("fp4x2")
    layers = [in_padded_buffers(plain_tensors(decision), decision) for _ in range(2)]
    both = torch.stack([layer["w13_weight"] for layer in layers])
    for layer, weight in zip(layers, both, strict=True):
        layer["w13_weight"] = weight
    apply(layers[1], decision)
    laid = both.clone()
    half = both[0].numel() // 2
    across = both.view(-1)[half : half + both[0].numel()].view(both[0].shape)
    with pytest.raises(LayoutError, match="a part of w13_weight is laid out already"):
        apply({**layers[0], "w13_weight": across}, decision)
    with pytest.raises(LayoutError, match="the tensor is laid out already"):
        apply_layout(both.flatten(0, 1), "sep16")
    assert both.equal(laid)
    apply(layers[0], decision)


def test_an_inverse_that_lacks_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide("fp4x2")
    tensors = plain_tensors(decision)
    apply(tensors, decision)
    held = dict(tensors)
    real, calls = torch.zeros, iter(range(100))

    def zeros(*arguments: Any, **keywords: Any) -> torch.Tensor:
        if next(calls) == 3:
            raise MemoryError("no memory")
        return real(*arguments, **keywords)

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(MemoryError):
        inverse(tensors)
    monkeypatch.undo()
    assert all(tensors[role] is held[role] and stamp_of(tensors[role]).state == "applied" for role in held)  # type: ignore[union-attr]


@pytest.mark.parametrize("target", [{}, torch.nn.Linear(2, 2)])
def test_a_target_without_a_layer_is_refused(target: Any) -> None:
    with pytest.raises(LayoutError, match="no tensor of a layer: there is nothing to invert"):
        inverse(target)
    with pytest.raises(LayoutError, match="no tensor of a layer: there is nothing to reload"):
        begin_reload(target)


def test_a_sparse_tensor_is_refused() -> None:
    tensors = plain_tensors(decision := decide("fp4x2"))
    tensors["w2_weight"] = tensors["w2_weight"].to_sparse()
    with pytest.raises(LayoutError, match=r"w2_weight is torch.sparse_coo; a dense tensor is needed"):
        apply(tensors, decision)


def test_half_laid_out_tensors_are_not_taken_back() -> None:
    apply(tensors := plain_tensors(decision := decide("fp4x2")), decision)
    part = {**tensors, "w13_weight": tensors["w13_weight"][:1]}
    with pytest.raises(LayoutError, match=r"w13_weight of shape .* is a part of what was laid out"):
        inverse(part)
    stamp = stamp_of(tensors["w2_weight"])
    assert stamp is not None
    put_stamp(tensors["w2_weight"], replace(stamp, state="broken"))
    with pytest.raises(LayoutError, match="w2_weight is broken, not laid out"):
        inverse(tensors)
    assert stamp_of(tensors["w13_weight"]) is not None
