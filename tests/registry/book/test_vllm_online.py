"""vLLM's online quantization: bf16 experts become fp8 while they are loaded."""

import pytest

from preshuffle.registry import NoRecipeError, Query
from support.book.strategies import REGISTRY

MODEL = "Qwen/Qwen3-30B-A3B"


def online(value: str, **fields: object) -> Query:
    given = {"model": MODEL, "arch": "gfx950", "engine": "vllm@0.33.0", "env": {"--quantization": value}}
    return Query.parse({**given, **fields})


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_blocks_are_laid_out_as_a_block_fp8_checkpoint(arch: str) -> None:
    found = REGISTRY.resolve(online("fp8_per_block", arch=arch))
    stored = REGISTRY.resolve(Query.parse({"model": f"{MODEL}-FP8", "arch": arch, "engine": "vllm@0.33.0"}))
    assert found.recipe == "vllm.fp8-block.sep16.online"
    assert found.call == stored.call
    assert {role: (tensor.layout, tensor.physical_shape) for role, tensor in found.tensors.items()} == {
        role: (tensor.layout, tensor.physical_shape) for role, tensor in stored.tensors.items()
    }
    assert not any(tensor.steps for tensor in found.tensors.values()), "the values are quantized to the GPU's own fp8"


def test_a_ranks_sizes_are_rounded_up_to_whole_blocks() -> None:
    tensors = REGISTRY.resolve(online("fp8_per_block", tp=8)).tensors
    assert tensors["w13_weight"].physical_shape == (128, 256, 2048)
    assert tensors["w2_weight"].physical_shape == (128, 2048, 128)
    assert tensors["w13_weight_scale"].physical_shape == (128, 2, 16)
    assert tensors["w2_weight_scale"].physical_shape == (128, 16, 1)


def test_channels() -> None:
    found = REGISTRY.resolve(online("fp8_per_channel", tp=2))
    assert (found.recipe, found.call.quant_type) == ("vllm.fp8-token.sep16.online", "per_Token")


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("nvfp4_per_token", {}),
        ("fp8_per_block", {"engine": "sglang@0.5.23"}),
        ("fp8_per_block", {"activation": "Swiglu"}),
        ("fp8_per_block", {"arch": "gfx1250"}),
    ],
)
def test_what_is_not_recorded_is_not_guessed(value: str, fields: dict[str, object]) -> None:
    with pytest.raises(NoRecipeError):
        REGISTRY.resolve(online(value, **fields))


def test_without_the_option_experts_stay_bf16() -> None:
    query = Query.parse({"model": MODEL, "arch": "gfx950", "engine": "vllm@0.33.0"})
    assert REGISTRY.resolve(query).recipe == "vllm.bf16.sep16"
