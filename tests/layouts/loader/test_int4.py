"""int4: one value per byte is laid out, then packed like AITER."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preshuffle.layouts import apply, inverse
from preshuffle.layouts.loader.int4 import pack_int4, unpack_int4
from preshuffle.layouts.loader.result import AITER_TAG
from preshuffle.registry import LayoutError
from support.aiter.aiter_wheel import AiterFunctions
from support.tensors.recipe_steps import (
    EXPERTS,
    HALVES,
    HIDDEN,
    INTERMEDIATE,
    Tensors,
    copies,
    decide,
    floats,
    raw_bytes,
    same,
)


def int4() -> Tensors:
    values = {
        "w13_weight": raw_bytes(EXPERTS, HALVES, HIDDEN, high=16),
        "w2_weight": raw_bytes(EXPERTS, HIDDEN, INTERMEDIATE, high=16),
    }
    scales = {
        "w13_weight_scale": floats(EXPERTS, HALVES, HIDDEN // 32),
        "w2_weight_scale": floats(EXPERTS, HIDDEN, INTERMEDIATE // 32),
    }
    return {
        **{role: (value.to(torch.int16) - 8).to(torch.int8) for role, value in values.items()},
        **{role: scale.to(torch.bfloat16) for role, scale in scales.items()},
    }


class TestInt4:
    def packed(self, laid: torch.Tensor) -> torch.Tensor:
        eights = laid.view(-1, 8).to(torch.int32) & 0xF
        return torch.stack([eights[:, i] | eights[:, i + 4] << 4 for i in range(4)], 1).to(torch.uint8)

    @pytest.mark.parametrize("names", [("w13_weight", "w2_weight"), ("w13_weight_packed", "w2_weight_packed")])
    def test_values_are_laid_out_and_then_packed(self, aiter: AiterFunctions, names: tuple[str, str]) -> None:
        plain = int4()
        tensors = {name: tensor.clone() for name, tensor in plain.items()}
        for role, name in zip(("w13_weight", "w2_weight"), names, strict=True):
            tensors[name] = tensors.pop(role)
        apply(tensors, decide("int4"))
        for role, name in zip(("w13_weight", "w2_weight"), names, strict=True):
            assert tensors[name].dtype == torch.int4  # type: ignore[attr-defined]  # missing in torch's stubs
            assert tuple(tensors[name].shape) == (*plain[role].shape[:2], plain[role].shape[2] // 2)
            assert same(tensors[name], self.packed(aiter.shuffle_weight(plain[role])))
            assert getattr(tensors[name], AITER_TAG)
            scale = plain[f"{role}_scale"].transpose(1, 2)  # [E, groups, rows], as AITER's function takes it
            pairs = scale.unflatten(1, (-1, 2)).permute(0, 1, 3, 2)
            assert same(tensors[f"{role}_scale"], pairs)
        inverse(tensors)
        for role, name in zip(("w13_weight", "w2_weight"), names, strict=True):
            assert tensors[name].equal(plain[role])

    def test_packing_is_aiters(self) -> None:
        """Equals a recorded call of AITER's pack_int8_to_packed_int4.

        Byte i of its input is the top one of i * 2654435761.
        """
        data = torch.tensor([(i * 2654435761 % 2**32) >> 24 for i in range(64)], dtype=torch.uint8)
        found = hashlib.sha256(bytes(pack_int4(data).tolist())).hexdigest()
        assert found == "16efae6f6a1b082ec55c849b2765892d88cd5e1d6944bc70cccba6b62812b320"

    @pytest.mark.parametrize("value", [8, -9, 127, -128])
    def test_values_that_are_no_int4_are_refused(self, value: int) -> None:
        tensors = int4()
        tensors["w2_weight"][1, 2, 3] = value
        held = copies(tensors)
        with pytest.raises(LayoutError, match=r"int4 is -8\.\.7, which the step pack_int4 needs"):
            apply(tensors, decide("int4"))
        assert all(same(tensors[name], held[name]) for name in held)

    @given(st.lists(st.integers(-8, 7), min_size=8, max_size=64).filter(lambda values: len(values) % 8 == 0))
    @settings(max_examples=50, deadline=None)
    def test_packing_is_undone_exactly(self, values: list[int]) -> None:
        data = torch.tensor(values, dtype=torch.int8).view(torch.uint8)
        assert pack_int4(data).equal(self.packed(data.view(torch.int8)).view(-1))
        assert unpack_int4(pack_int4(data)).equal(data)
