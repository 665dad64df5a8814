"""Engines' own loaders of plain rows on laid-out layers, and views of plain rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, inverse, plain_reload, plain_view, stamp_of
from preshuffle.layouts.loader import AITER_TAG
from preshuffle.layouts.loader.input_checks import torch_shape
from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.words import Role
from support.tensors.moe import ACTIVATIONS, decide, in_padded_buffers, plain_tensors

Tensors = dict[str, torch.Tensor]
TP = 2


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


def loader(parameter: torch.nn.Parameter, loaded: torch.Tensor, shard: str, expert: int, rank: int) -> None:
    """Write one expert's shard as engines do: the parameter's own size says how much of the checkpoint is meant."""
    rows = parameter.data[expert]
    if shard == "w2":
        loaded = loaded.narrow(-1, rank * rows.shape[-1], rows.shape[-1])
    else:
        half = rows.shape[0] // 2
        loaded = loaded.narrow(0, rank * half, half)
        rows = rows.narrow(0, half if shard == "w3" else 0, half)
    rows.copy_(loaded)


def as_layer(tensors: Tensors) -> torch.nn.Module:
    layer = torch.nn.Module()
    for role, tensor in tensors.items():
        parameter = torch.nn.Parameter(tensor, requires_grad=False)
        parameter.weight_loader = loader  # type: ignore[attr-defined]
        layer.register_parameter(role, parameter)
    return layer


def places(layer: torch.nn.Module) -> dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], bool]]:
    return {
        name: (id(one), one.data_ptr(), tuple(one.shape), one.stride(), getattr(one, AITER_TAG, False))
        for name, one in layer.named_parameters()
    }


@pytest.mark.parametrize("rank", range(TP))
def test_an_engines_loader_of_plain_rows_updates_a_laid_out_layer(rank: int) -> None:
    decision = decide("bf16", model="Qwen/Qwen3-30B-A3B", weight_dtype="bf16", tp=TP)
    whole = {role: tensor_of(decision, role, seed=5) for role in ("w13_weight", "w2_weight")}
    layer = as_layer(plain_tensors_bf16(decision))
    apply(layer, decision)
    before = places(layer)
    with plain_reload(layer, decision) as plain:
        for role in ("w13_weight", "w2_weight"):
            parameter: Any = getattr(layer, role)
            assert tuple(parameter.shape) == tuple(plain[role].shape)
            for expert in range(parameter.shape[0]):
                for shard in ("w1", "w3") if role == "w13_weight" else ("w2",):
                    parameter.weight_loader(parameter, whole[role][shard][expert], shard, expert, rank)
    assert places(layer) == before
    wanted = {role: shard_of(whole[role], rank) for role in whole}
    apply(wanted, decision)
    for role in wanted:
        assert raw(getattr(layer, role)).equal(raw(wanted[role]))
        assert stamp_of(getattr(layer, role)) == stamp_of(wanted[role])


def plain_tensors_bf16(decision: Decision) -> Tensors:
    random = torch.Generator().manual_seed(1)
    return {
        role: torch.randn(torch_shape(decided.logical_shape, decided), generator=random).bfloat16()
        for role, decided in decision.tensors.items()
    }


def tensor_of(decision: Decision, role: Role, seed: int) -> dict[str, torch.Tensor]:
    """Return a whole checkpoint's tensors by shard, as all ranks together read them."""
    random = torch.Generator().manual_seed(seed)
    experts, rows, k = decision.tensors[role].logical_shape
    if role == "w2_weight":
        return {"w2": torch.randn((experts, rows, k * TP), generator=random).bfloat16()}
    size = (experts, rows // 2 * TP, k)
    return {shard: torch.randn(size, generator=random).bfloat16() for shard in ("w1", "w3")}


def shard_of(shards: dict[str, torch.Tensor], rank: int) -> torch.Tensor:
    if "w2" in shards:
        return shards["w2"].chunk(TP, -1)[rank].contiguous()
    return torch.cat([shards[name].chunk(TP, 1)[rank] for name in ("w1", "w3")], 1)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_not_loaded_stays_and_what_is_loaded_changes(activation: str, padded: bool) -> None:
    decision = decide(activation)
    first, second = plain_tensors(decision), plain_tensors(decision, seed=9)
    tensors = in_padded_buffers(dict(first), decision) if padded else dict(first)
    apply(tensors, decision)
    pointers = {role: tensor.data_ptr() for role, tensor in tensors.items()}
    with plain_reload(tensors, decision) as plain:
        for name, tensor in plain.items():
            live = second[name][1]  # one expert alone
            tensor[1][tuple(slice(size) for size in live.shape)] = live
            assert tensors[name].shape == tensor.shape
    assert {role: tensor.data_ptr() for role, tensor in tensors.items()} == pointers
    mixed = {role: tensor.clone() for role, tensor in first.items()}
    for role in mixed:
        mixed[role][1] = second[role][1]
    wanted = in_padded_buffers(mixed, decision) if padded else mixed
    apply(wanted, decision)
    assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)
    inverse(tensors)
    inverse(wanted)
    assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)


def test_a_load_that_fails_leaves_the_layer_as_it_was() -> None:
    decision = decide("fp4x2")
    layer = as_layer({role: tensor for role, tensor in plain_tensors(decision).items()})
    apply(layer, decision)
    before = places(layer)
    kept = {name: raw(one).clone() for name, one in layer.named_parameters()}

    def load() -> None:
        with plain_reload(layer, decision) as plain:
            plain["w13_weight"].zero_()
            raise RuntimeError("the trainer is gone")

    with pytest.raises(RuntimeError, match="the trainer is gone"):
        load()
    assert places(layer) == before
    assert all(raw(one).equal(kept[name]) for name, one in layer.named_parameters())
    assert {stamp.state for one in layer.parameters() if (stamp := stamp_of(one))} == {"applied"}


def test_only_laid_out_layers_of_the_decisions_size_are_reloaded() -> None:
    decision = decide("fp4x2")
    tensors = plain_tensors(decision)
    with pytest.raises(LayoutError, match=r"w13_weight is not laid out \(no stamp\)"), plain_reload(tensors, decision):
        raise AssertionError
    apply(tensors, decision)
    kept = {role: raw(tensor).clone() for role, tensor in tensors.items()}
    with pytest.raises(LayoutError), plain_reload(tensors, decide("fp4x2", tp=2)):
        pass
    assert all(raw(tensors[role]).equal(kept[role]) for role in kept)
    tensors["w2_weight"].view(torch.uint8)[0, 0, 0] ^= 1
    with pytest.raises(LayoutError, match="was written to"), plain_reload(tensors, decision):
        raise AssertionError


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_code_breaks_its_graph_for_a_reload() -> None:
    decision = decide("fp4x2")
    tensors, wanted = plain_tensors(decision), plain_tensors(decision)
    wanted["w13_weight"].zero_()
    for one in (tensors, wanted):
        apply(one, decision)

    def step(values: torch.Tensor) -> torch.Tensor:
        with plain_reload(tensors, decision) as plain:
            plain["w13_weight"].zero_()
        return values + 1

    torch.compiler.reset()
    assert torch.compile(step, backend="eager")(torch.ones(2)).equal(torch.full((2,), 2.0))
    torch.compiler.reset()
    assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)


@pytest.mark.parametrize("change", [None, lambda tensors: tensors, dict])
def test_plain_rows_are_a_view_where_nothing_was_laid_out(change: Callable[[Tensors], Tensors] | None) -> None:
    tensors = plain_tensors(decide("fp4x2"))
    view = plain_view(change(tensors) if change else tensors, "w13_weight")
    assert view.data_ptr() == tensors["w13_weight"].data_ptr()


def test_plain_rows_are_a_view_of_a_layer_that_is_laid_out_plain() -> None:
    decision = decide("bf16", arch="gfx942", engine="vllm@0.33.0")
    assert decision.tensors["w13_weight"].layout == "plain"
    plain, tensors = plain_tensors(decision), plain_tensors(decision)
    apply(tensors, decision)
    for role in ("w13_weight", "w2_weight"):
        view = plain_view(tensors, role)
        assert view.data_ptr() == tensors[role].data_ptr()
        assert raw(view).equal(raw(plain[role]))


def test_laid_out_rows_are_refused_with_what_to_do() -> None:
    decision = decide("fp4x2")
    tensors = plain_tensors(decision)
    apply(tensors, decision)
    with pytest.raises(LayoutError, match="w13_weight is laid out as sep16: no view shows its plain rows; resolve for"):
        plain_view(tensors, "w13_weight")
    tagged = plain_tensors(decision)
    setattr(tagged["w13_weight"], AITER_TAG, True)
    with pytest.raises(LayoutError, match="has AITER's tag and no stamp"):
        plain_view(tagged, "w13_weight")
    with pytest.raises(LayoutError, match="the target has no w2_bias"):
        plain_view({"w13_weight": tensors["w13_weight"]}, "w2_bias")
