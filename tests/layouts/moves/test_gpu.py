"""Streams, graphs and 64-bit sizes on a real GPU.

Skipped where there is none.
"""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts import apply, apply_layout, begin_reload, finish_reload, inverse, plain_reload
from preshuffle.layouts.loader.single import invert_layout, layout_of
from preshuffle.layouts.moves.in_place import InPlace
from preshuffle.registry import CopyPlan, PlainView, plan_copy
from support.tensors.moe import ACTIVATIONS, decide, in_padded_buffers, plain_tensors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("layout", ["sep16", "gui16", "e8", "e8_gui16"])
def test_work_goes_to_the_current_stream(layout: str) -> None:
    """The input is written late on a side stream.

    Whoever does not wait for it there reads zeros.
    """
    made = torch.randint(0, 256, (64, 512, 512), dtype=torch.uint8, device="cuda")
    wanted = apply_layout(made, layout).cpu()
    stream = torch.cuda.Stream()
    late, out = torch.zeros_like(made), torch.zeros_like(made)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(made)
        apply_layout(late, layout, out=out)
        assert not stream.query()  # and nothing waited
    torch.cuda.synchronize()
    assert out.cpu().equal(wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_graph_sees_reloaded_bytes_at_the_same_addresses(activation: str) -> None:
    decision = decide(activation)
    buffers = in_padded_buffers(plain_tensors(decision), decision)
    tensors = {role: tensor.cuda().float() if "bias" in role else tensor.cuda() for role, tensor in buffers.items()}
    apply(tensors, decision)
    before = {role: (tensor.data_ptr(), tensor.stride()) for role, tensor in tensors.items()}
    weight = tensors["w13_weight"].view(torch.uint8)
    seen = torch.empty_like(weight)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seen.copy_(weight)
    begin_reload(tensors)
    fresh = in_padded_buffers(plain_tensors(decision, seed=5), decision)
    for role, tensor in tensors.items():
        value = fresh[role].float() if "bias" in role else fresh[role]
        (tensor if "bias" in role else tensor.view(torch.uint8)).copy_(value)
    finish_reload(tensors, decision)
    graph.replay()
    torch.cuda.synchronize()
    assert {role: (tensor.data_ptr(), tensor.stride()) for role, tensor in tensors.items()} == before
    apply(wanted := plain_tensors(decision, seed=5), decision)
    assert seen.cpu().equal(wanted["w13_weight"].view(torch.uint8))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_graph_sees_what_an_engines_loader_of_plain_rows_wrote(activation: str) -> None:
    decision = decide(activation)
    tensors = {role: tensor.cuda() for role, tensor in plain_tensors(decision).items()}
    apply(tensors, decision)
    weight = tensors["w13_weight"].view(torch.uint8)
    seen = torch.empty_like(weight)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seen.copy_(weight)
    fresh = plain_tensors(decision, seed=5)
    with plain_reload(tensors, decision) as plain:
        for role, tensor in plain.items():
            tensor.copy_(fresh[role])
    graph.replay()
    torch.cuda.synchronize()
    apply(wanted := plain_tensors(decision, seed=5), decision)
    assert seen.cpu().equal(wanted["w13_weight"].view(torch.uint8))


def test_laying_out_can_be_captured() -> None:
    plain = torch.randint(0, 256, (256, 1024, 1024), dtype=torch.uint8, device="cuda")
    out = torch.empty_like(plain)
    wanted = apply_layout(plain, "gui16").clone()
    apply_layout(plain, "gui16", out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        apply_layout(plain, "gui16", out=out)
    out.zero_()
    graph.replay()
    assert out.equal(wanted)


@pytest.mark.parametrize("layout", ["sep16", "gui16", "e8", "e8_gui16"])
def test_more_bytes_than_32_bits_count(layout: str) -> None:
    experts, rows, k = 9, 8192, 65536  # 4.8 GB
    plain = torch.randint(0, 256, (experts, rows, k), dtype=torch.uint8, device="cuda")
    laid = apply_layout(plain, layout)
    assert laid[-1].equal(apply_layout(plain[-1:].clone(), layout)[0])
    assert invert_layout(laid, layout).equal(plain)


@pytest.mark.parametrize("scratch_bytes", [64 << 20, 1 << 20, 0])
@pytest.mark.parametrize("shape", [(128, 5760, 96), (3, 6144, 96), (300, 64, 8), (5, 4096, 224)])
def test_gate_and_up_of_scales_are_joined_in_place(shape: tuple[int, int, int], scratch_bytes: int) -> None:
    """Joins halves with any amount of scratch.

    Programs take several experts each, or bands are brought together first.
    """
    layout, (experts, rows, k) = layout_of("e8_gui16"), shape

    def plan(count: int) -> CopyPlan:
        view = PlainView(count, 2, rows // 2, k, rows * k, rows // 2 * k, k)
        return plan_copy(layout.bind(count, rows, k), view)

    scale = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
    wanted = apply_layout(scale, layout)
    job = InPlace(plan, experts, rows * k)
    size = job.scratch_for(scale.view(-1), scratch_bytes)
    assert size <= scratch_bytes
    job.lay_out(scale.view(-1), torch.empty(size, dtype=torch.uint8, device="cuda"), 0)
    assert scale.equal(wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_layer_of_five_gigabytes_goes_in_place_and_back(activation: str) -> None:
    decision = decide(activation, hidden_size=4096, intermediate_size=4096, num_experts=272)
    roles = decision.tensors.items()
    sizes = {role: decided.physical_shape for role, decided in roles}
    assert sizes["w13_weight"][0] * sizes["w13_weight"][1] * sizes["w13_weight"][2] // 2 > 2**32
    tensors: dict[str, torch.Tensor] = {}
    for role, shape in sizes.items():
        if "bias" in role:
            tensors[role] = torch.randn(shape, device="cuda")
        else:
            width = shape[2] // (1 if "scale" in role else 2)
            tensors[role] = torch.randint(0, 256, (*shape[:2], width), dtype=torch.uint8, device="cuda")
    last = {role: tensor[-1:].clone() for role, tensor in tensors.items()}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    apply(tensors, decision)
    fingerprints = 4 << 20  # of six tensors, and the places that they read
    assert torch.cuda.max_memory_allocated() - held <= (64 << 20) + fingerprints
    inverse(tensors)
    assert all(tensors[role][-1:].equal(last[role]) for role in last)
