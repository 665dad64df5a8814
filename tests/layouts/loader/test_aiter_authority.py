"""AITER as authority, played by the functions of its wheel."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch

from preshuffle.layouts import apply, apply_layout, describe, inverse, relayout, write_expert
from preshuffle.layouts.loader import aiter_authority
from preshuffle.layouts.loader.aiter_authority import AiterComparisons, AiterDiffersWarning
from preshuffle.registry import Decision, LayoutError, Observation, Registry
from preshuffle.registry.base.words import Role
from support.aiter.aiter_wheel import AiterFunctions
from support.tensors.moe import ACTIVATIONS, decide, gpt_oss, in_padded_buffers, plain_tensors

IN_THE_WHEEL = {"sep16", "sep32", "gui16", "e8", "e8_gui16"}
Loader = Callable[[str, str], Callable[..., torch.Tensor] | None]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiter_authority, "_COMPARISONS", AiterComparisons())


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, aiter: AiterFunctions) -> list[str]:
    """An AITER that can be imported; the names that were asked for."""
    asked: list[str] = []

    def load(module: str, name: str) -> Callable[..., torch.Tensor] | None:
        asked.append(name)
        return getattr(aiter, name, None)

    monkeypatch.setattr(aiter_authority, "can_import", lambda: True)
    monkeypatch.setattr(aiter_authority, "load_aiter_function", load)
    return asked


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("backend", ["aiter", "auto"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_aiters_functions_give_the_same_layer(
    installed: list[str], activation: str, backend: str, padded: bool
) -> None:
    decision = decide(activation)
    plain = plain_tensors(decision)
    apply(wanted := dict(plain), decision, backend="native")
    tensors = in_padded_buffers(plain, decision) if padded else dict(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = apply(tensors, decision, backend=backend)  # type: ignore[arg-type]
    assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)
    assert {"shuffle_weight", "e8m0_shuffle"} <= set(installed)
    assert result.findings == ()
    assert all(observed.layout is not None for observed in result.tensors.values())


@pytest.mark.parametrize("layout", ["sep16", "gui16", "e8", "e8_gui16"])
def test_one_tensor_through_aiter(installed: list[str], layout: str) -> None:
    tensor = torch.randint(0, 256, (2, 288, 256), dtype=torch.uint8)
    assert apply_layout(tensor, layout, backend="aiter").equal(apply_layout(tensor, layout, backend="native"))
    assert installed


def test_where_aiter_differs_its_bytes_are_used_and_it_is_said(
    installed: list[str], monkeypatch: pytest.MonkeyPatch, aiter: AiterFunctions
) -> None:
    monkeypatch.setattr(
        aiter_authority,
        "load_aiter_function",
        lambda module, name: lambda tensor: aiter.shuffle_weight(tensor).flip(-1),
    )
    tensor = torch.randint(0, 256, (2, 64, 256), dtype=torch.uint8)
    with pytest.warns(AiterDiffersWarning, match=r"sep16 gives other bytes on \(2, 64, 256\): AITER's are used"):
        found = apply_layout(tensor, "sep16")
    assert found.equal(aiter.shuffle_weight(tensor).flip(-1))
    assert apply_layout(tensor, "sep16").equal(found), "compared once, remembered"


@pytest.fixture
def deviating(installed: list[str], monkeypatch: pytest.MonkeyPatch, aiter: AiterFunctions) -> Decision:
    """Decision for which AITER's weight function gives other bytes.

    Its scale function agrees with the book.
    """

    def load(module: str, name: str) -> Callable[..., torch.Tensor] | None:
        if name == "shuffle_weight":
            return lambda tensor: aiter.shuffle_weight(tensor).flip(-1)
        return getattr(aiter, name, None)

    monkeypatch.setattr(aiter_authority, "load_aiter_function", load)
    return decide("fp4x2")


@pytest.mark.parametrize("padded", [False, True])
def test_a_difference_is_in_the_result_of_apply(deviating: Decision, padded: bool) -> None:
    plain = plain_tensors(deviating)
    tensors = in_padded_buffers(plain, deviating) if padded else plain
    with pytest.warns(AiterDiffersWarning):
        result = apply(tensors, deviating)
    weights: list[Role] = ["w13_weight", "w2_weight"]
    assert [(finding.code, finding.role) for finding in result.findings] == [("layout_mismatch", w) for w in weights]
    assert {role for role, observed in result.tensors.items() if observed.layout is None} == set(weights)
    assert describe(tensors, deviating) == result, "it stays with the bytes, not with the call"
    assert apply(tensors, deviating, again="skip") == result
    report = Registry.default().check(Observation(query=gpt_oss("fp4x2"), applied=result))
    assert report.verdict == "unknown", "nobody vouches for bytes that the book does not know"


def test_bytes_that_differ_are_not_taken_for_the_layouts(deviating: Decision) -> None:
    with pytest.warns(AiterDiffersWarning):
        apply(tensors := plain_tensors(deviating), deviating)
    before = {role: raw(tensor).clone() for role, tensor in tensors.items()}
    with pytest.raises(LayoutError, match="AITER's bytes differ from layout sep16; load the checkpoint again"):
        inverse(tensors)
    with pytest.raises(LayoutError, match="AITER's bytes differ from layout sep16; load the checkpoint again"):
        relayout(tensors, decide("bf16"))
    with pytest.raises(LayoutError, match="AITER's bytes differ from layout sep16; reload the layer"):
        write_expert(tensors, 0, "w2_weight", plain_tensors(deviating)["w2_weight"][0])
    assert all(raw(tensors[role]).equal(found) for role, found in before.items())


def test_without_a_function_or_without_aiter_it_is_an_error(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.zeros(1, 32, 64, dtype=torch.uint8)
    with pytest.raises(LayoutError, match="n32k4: AITER has no function for it; use backend native"):
        apply_layout(tensor, "n32k4", backend="aiter")
    assert apply_layout(tensor, "n32k4").equal(tensor), "auto is native where AITER has nothing to say"
    monkeypatch.setattr(aiter_authority, "can_import", lambda: False)
    monkeypatch.setattr(aiter_authority, "load_aiter_function", lambda module, name: None)
    with pytest.raises(LayoutError, match="sep16: AITER cannot be imported here; use backend native"):
        apply_layout(tensor, "sep16", backend="aiter")


def test_a_failing_function_writes_nothing(installed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(aiter_authority, "load_aiter_function", lambda module, name: fails)
    out = torch.full((32 * 64,), 7, dtype=torch.uint8)
    with pytest.raises(LayoutError, match=r"sep16: AITER's function failed on \(1, 32, 64\): shape mismatch"):
        apply_layout(torch.zeros(1, 32, 64, dtype=torch.uint8), "sep16", out=out, backend="aiter")
    assert out.eq(7).all()


def test_every_layout_is_compared_for_the_doctor(installed: list[str]) -> None:
    verdicts = aiter_authority.compare_layouts_with_aiter("cpu")
    assert {name for name, verdict in verdicts.items() if verdict == "equal"} == IN_THE_WHEEL
    assert {verdict for name, verdict in verdicts.items() if name not in IN_THE_WHEEL} == {"no function"}


def test_aiter_is_not_imported_without_rocm() -> None:
    import sys

    assert not aiter_authority.can_import()
    assert aiter_authority.load_aiter_function("aiter.ops.shuffle", "shuffle_weight") is None
    assert "aiter" not in sys.modules
