"""GPU architectures: what they are, what they report when they are split, what they cannot run."""

import pytest

from preshuffle.registry import NoRecipeError, Query
from support.book.strategies import BOOK, REGISTRY


@pytest.mark.parametrize(
    ("arch", "fp8", "mxfp4", "default"),
    [
        ("gfx942", "fp8_e4m3fnuz", False, None),
        ("gfx950", "fp8_e4m3fn", True, 256),
        ("gfx1250", "fp8_e4m3fn", True, 256),
        ("gfx90a", None, False, None),
        ("gfx1100", None, False, 96),
        ("gfx1200", "fp8_e4m3fn", False, 32),
        ("gfx1201", "fp8_e4m3fn", False, 64),
    ],
)
def test_what_an_arch_takes(arch: str, fp8: str | None, mxfp4: bool, default: int | None) -> None:
    entry = BOOK.archs[arch]
    assert (entry.fp8, entry.default_cu_num) == (fp8, default)
    assert any(feature.startswith("mxfp4") for feature in entry.features) == mxfp4
    assert set(entry.products) == set(entry.cu_num)
    assert set(entry.partitions) <= set(entry.products)


@pytest.mark.parametrize("arch", BOOK.archs)
def test_what_an_arch_lacks_has_words(arch: str) -> None:
    entry = BOOK.archs[arch]
    every = {feature for other in BOOK.archs.values() for feature in other.features}
    required = {feature for recipe in BOOK.recipes.values() for feature in recipe.requires.arch}
    assert required <= every
    assert set(entry.lacks) == every - set(entry.features)
    assert all(arch in words for words in entry.lacks.values())


@pytest.mark.parametrize(
    ("arch", "cu_num", "names"),
    [
        ("gfx942", 304, ("MI300X", "MI325X")),
        ("gfx942", 80, ("MI308X",)),
        ("gfx942", 38, ("MI300X in CPX", "MI325X in CPX", "MI300A in CPX")),
        ("gfx942", 76, ("MI300X in QPX", "MI325X in QPX", "MI300A in TPX")),
        ("gfx942", 152, ("MI300X in DPX", "MI325X in DPX")),
        ("gfx950", 32, ("MI350X in CPX", "MI355X in CPX")),
        ("gfx950", 304, ()),
    ],
)
def test_compute_units_tell_the_product_and_its_partition(arch: str, cu_num: int, names: tuple[str, ...]) -> None:
    assert BOOK.archs[arch].name_of(cu_num) == names


@pytest.mark.parametrize("arch", BOOK.archs)
def test_parts_of_a_chip_are_whole_shares(arch: str) -> None:
    entry = BOOK.archs[arch]
    for product, modes in entry.partitions.items():
        assert all(entry.cu_num[product] % part == 0 for part in modes.values())


@pytest.mark.parametrize(
    ("model", "arch", "words"),
    [
        ("Qwen/Qwen3-30B-A3B", "gfx90a", "AITER's fused MoE names kernels for gfx942, gfx950 and gfx1250 only"),
        ("Qwen/Qwen3-30B-A3B", "gfx1201", "AITER's fused MoE names kernels for gfx942, gfx950 and gfx1250 only"),
        ("openai/gpt-oss-120b", "gfx1100", "AITER's fused MoE names kernels for gfx942, gfx950 and gfx1250 only"),
    ],
)
def test_a_gpu_without_kernels_ends_in_words(model: str, arch: str, words: str) -> None:
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(Query(model=model, arch=arch))
    assert str(caught.value).startswith(f"nothing is known to work for {model}")
    assert words in str(caught.value)


@pytest.mark.parametrize("engine", ["atom", "vllm", "sglang"])
def test_fp8_on_a_gpu_without_it_ends_in_words_in_any_engine(engine: str) -> None:
    with pytest.raises(NoRecipeError, match="the GPU has no fp8 matrix instructions"):
        REGISTRY.resolve(Query.parse({"model": "Qwen/Qwen3-30B-A3B-FP8", "arch": "gfx90a", "engine": engine}))
