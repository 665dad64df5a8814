"""GPUs by any of their names: gfx names, torch's gcnArchName, products and aliases."""

from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Query
from preshuffle.registry.values.observation import Observation
from support.book.strategies import BOOK, REGISTRY

GPT_OSS = {"model": "openai/gpt-oss-120b", "activation_dtype": "bf16"}


@pytest.mark.parametrize(
    ("name", "arch", "cu_num"),
    [
        ("gfx950", "gfx950", None),
        ("GFX950", "gfx950", None),
        ("gfx950:sramecc+:xnack-", "gfx950", None),
        ("gfx90a:sramecc+:xnack-", "gfx90a", None),
        ("MI300X", "gfx942", 304),
        ("mi300x", "gfx942", 304),
        ("MI300A", "gfx942", 228),
        ("MI308X", "gfx942", 80),
        ("MI300", "gfx942", None),
        ("AMD Instinct MI325X", "gfx942", 304),
        ("MI355X", "gfx950", 256),
        ("amd_instinct-mi350x", "gfx950", 256),
        ("R9700", "gfx1201", 64),
        ("r9700", "gfx1201", 64),
        ("Radeon AI PRO R9700", "gfx1201", 64),
        ("AMD RADEON AI PRO R9700", "gfx1201", 64),
        ("7900 XTX", "gfx1100", 96),
        ("MI250X", "gfx90a", 110),
        ("MI100", "gfx908", 120),
    ],
)
def test_what_a_name_means(name: str, arch: str, cu_num: int | None) -> None:
    entry, query = BOOK.arch_names.complete(Query(model="m", arch=name))
    assert entry is BOOK.archs[arch]
    assert (query.arch, query.cu_num) == (arch, cu_num)


@pytest.mark.parametrize("arch", BOOK.archs)
def test_every_product_has_a_name_and_its_compute_units(arch: str) -> None:
    for product in BOOK.archs[arch].products:
        named = BOOK.arch_names.find(f"AMD {product}") or BOOK.arch_names.find(product)
        assert named is not None
        assert (named.entry.id, named.cu_num) == (arch, BOOK.archs[arch].cu_num[product])


def test_compute_units_that_are_stated_stay() -> None:
    _, query = BOOK.arch_names.complete(Query(model="m", arch="MI300X", cu_num=38))
    assert (query.arch, query.cu_num) == ("gfx942", 38)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mi35x", "unknown arch 'mi35x'; did you mean MI355X, MI350X or MI325X?"),
        ("gfx951", "unknown arch 'gfx951'; did you mean gfx950, "),
        ("R970", "unknown arch 'R970'; did you mean "),
        ("0", "unknown arch '0'; valid: gfx942, gfx950, "),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name: str, text: str) -> None:
    assert BOOK.arch_names.find(name) is None
    for answer in (REGISTRY.resolve, REGISTRY.explain):
        with pytest.raises(NoRecipeError) as caught:
            answer(Query(model="openai/gpt-oss-120b", arch=name))
        assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("MI300X", {"arch": "gfx942", "cu_num": 304}),
        ("MI308X", {"arch": "gfx942", "cu_num": 80}),
        ("MI355X", {"arch": "gfx950"}),
        ("gfx950:sramecc+:xnack-", {"arch": "gfx950"}),
    ],
)
def test_every_name_gets_the_same_answers(name: str, plain: dict[str, Any]) -> None:
    named, gfx = Query.parse({**GPT_OSS, "arch": name}), Query.parse({**GPT_OSS, **plain})
    assert REGISTRY.resolve(named) == REGISTRY.resolve(gfx)
    assert REGISTRY.resolve(gfx).kernels
    assert REGISTRY.predict(named, 64) == REGISTRY.predict(gfx, 64)
    assert REGISTRY.explain(named).rules == REGISTRY.explain(gfx).rules
    for layout in ("gui16", "sep16", "plain"):
        applied = {"gate_mode": "interleave", "tensors": {"w13_weight": {"layout": layout}}}
        reports = [REGISTRY.check(Observation(query=query, applied=applied), decide=True) for query in (named, gfx)]
        assert reports[0] == reports[1]


@pytest.mark.parametrize(("made", "stale"), [("MI355X", False), ("gfx950:sramecc+:xnack-", False), ("MI300X", True)])
def test_a_cache_names_its_gpu_in_any_way(made: str, stale: bool) -> None:
    query = Query.parse({**GPT_OSS, "arch": "gfx950"})
    report = REGISTRY.check(Observation.parse({"query": dict(query), "applied": {"cache": {"arch": made}}}))
    assert any(finding.code == "stale_cache" for finding in report.findings) == stale


@pytest.mark.parametrize("engine", ["atom", "vllm", "sglang"])
@pytest.mark.parametrize("arch", ["gfx1201", "R9700", "gfx1100", "gfx1151", "gfx908"])
def test_an_engine_on_a_gpu_without_kernels_of_aiter(engine: str, arch: str) -> None:
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(Query.parse({**GPT_OSS, "arch": arch, "engine": engine}))
    text = str(caught.value)
    assert "no fused MoE of AITER" in text
    assert "Triton" in text
    assert "plain bytes" in text
    assert "needs arch" not in text
