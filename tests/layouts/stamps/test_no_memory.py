"""Tensors without bytes of their own, and ``out`` at an odd byte, are refused cleanly."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from preshuffle.layouts import (
    apply,
    apply_layout,
    begin_reload,
    describe,
    expert_view,
    inverse,
    invert_layout,
    relayout,
    retag,
    stamp_of,
    write_expert,
)
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, plain_tensors

DECISION = decide("fp4x2")
PLAIN = plain_tensors(DECISION)
ROWS = torch.zeros(2, 64, 128, dtype=torch.uint8)
USES: dict[str, Callable[[torch.Tensor], object]] = {
    "apply_layout": lambda tensor: apply_layout(tensor, "sep16"),
    "apply_layout, padded": lambda tensor: apply_layout(tensor, "sep16", fill=0),
    "out": lambda tensor: apply_layout(ROWS, "sep16", out=tensor),
    "invert_layout": lambda tensor: invert_layout(tensor, "sep16"),
    "stamp_of": stamp_of,
    "apply": lambda tensor: apply({**PLAIN, "w13_weight": tensor}, DECISION),
    "inverse": lambda tensor: inverse({"w13_weight": tensor}),
    "relayout": lambda tensor: relayout({**PLAIN, "w2_weight": tensor}, DECISION),
    "begin_reload": lambda tensor: begin_reload({"w13_weight": tensor}),
    "retag": lambda tensor: retag({"w13_weight": tensor}),
    "describe": lambda tensor: describe({**PLAIN, "w13_bias": tensor}, DECISION),
    "write_expert": lambda tensor: write_expert({"w13_weight": tensor}, 0, "w13_weight", ROWS[0]),
    "expert_view": lambda tensor: expert_view({"w13_weight": tensor}, "w13_weight", 0),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_stand_in_without_bytes_is_refused(use: Callable[[torch.Tensor], object]) -> None:
    refused = 0

    def run(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal refused
        with pytest.raises(LayoutError, match=r"is a \w+( that wraps another one|: it has no bytes)|meta device"):
            use(tensor)
        refused += 1
        return tensor.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with FakeTensorMode():
            fake = torch.zeros(2, 64, 128, dtype=torch.uint8)
        run(fake)
        torch.vmap(run)(torch.zeros(3, 2, 64, 128, dtype=torch.uint8))
        torch.func.grad(run)(torch.zeros(2, 64, 128))
        torch.func.functionalize(run)(torch.zeros(2, 64, 128, dtype=torch.uint8))
    assert refused == 4


def freed() -> torch.Tensor:
    tensor = torch.zeros(2, 64, 128, dtype=torch.uint8)
    tensor.untyped_storage().resize_(100)
    return tensor


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_memory_that_was_freed_is_refused(use: Callable[[torch.Tensor], object]) -> None:
    if use is stamp_of:
        assert stamp_of(freed()) is None
        return
    with pytest.raises(LayoutError, match="larger than its storage of 100 bytes: its memory was freed"):
        use(freed())


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_parameter_that_is_not_initialised_is_refused(use: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(LayoutError, match="is a UninitializedParameter: it has no bytes yet"):
        use(torch.nn.UninitializedParameter(requires_grad=False))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_traced_tensor_is_refused(use: Callable[[torch.Tensor], object]) -> None:
    def run(tensor: torch.Tensor) -> torch.Tensor:
        with pytest.raises(LayoutError, match=r"is traced by torch\.jit"):
            use(tensor)
        return tensor + 1

    torch.jit.trace(run, torch.zeros(2, 64, 128, dtype=torch.uint8), check_trace=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_code_calls_the_functions_as_they_are(backend: str) -> None:
    plain = torch.randint(0, 256, (2, 64, 128), dtype=torch.uint8)

    def work(tensor: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        apply(tensors, DECISION)
        retag(tensors)
        return apply_layout(tensor + 1, "sep16") * 2

    torch.compiler.reset()
    apply(wanted := dict(PLAIN), DECISION)
    tensors = dict(PLAIN)
    assert torch.compile(work, backend=backend)(plain, tensors).equal(apply_layout(plain + 1, "sep16") * 2)
    torch.compiler.reset()
    for role, tensor in tensors.items():
        assert tensor.view(torch.uint8).equal(wanted[role].view(torch.uint8))
        assert stamp_of(tensor) == stamp_of(wanted[role])


def test_a_mode_that_makes_fakes_is_refused() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(LayoutError, match="is a FakeTensor"):
        apply_layout(ROWS, "sep16")


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64])
def test_out_at_an_odd_byte_is_refused(offset: int, dtype: torch.dtype) -> None:
    plain = torch.randint(0, 100, (1, 32, 64)).to(dtype)
    for whole in (
        torch.zeros(plain.nbytes + 8, dtype=torch.uint8)[offset : offset + plain.nbytes],
        torch.from_numpy(np.zeros(plain.nbytes + 8, np.uint8)[offset : offset + plain.nbytes]),
        torch.frombuffer(bytearray(plain.nbytes + offset), dtype=torch.uint8, offset=offset),
    ):
        if whole.data_ptr() % dtype.itemsize:
            with pytest.raises(LayoutError, match="out begins at a byte that is no multiple of"):
                apply_layout(plain, "plain", out=whole)
            assert not whole.any()
        else:
            assert apply_layout(plain, "plain", out=whole).equal(plain)


@pytest.mark.parametrize("offset", range(4))
def test_bytes_go_to_any_address(offset: int) -> None:
    plain = torch.randint(0, 256, (2, 64, 128), dtype=torch.uint8)
    out = torch.zeros(plain.numel() + 4, dtype=torch.uint8)[offset : offset + plain.numel()]
    assert apply_layout(plain, "sep16", out=out).equal(apply_layout(plain, "sep16"))
