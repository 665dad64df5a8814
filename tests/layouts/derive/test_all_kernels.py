"""Prebuilt kernels drawn at random: all decode, all are modelled, all give the numbers (make soak)."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from pathlib import Path

import pytest

from preshuffle.layouts.derive import AssemblyKernel, DeriveError, KernelDeriver, KernelKind, hsa_folder, kind_of
from preshuffle.layouts.emulator import CodeObject, Program
from preshuffle.registry import Registry
from support.kernels import kernel_path

pytestmark = pytest.mark.slow
SAMPLE, SEED = 60, 15
CLOSE = {"bf16": 0.06, "f16": 0.06, "fp8_block": 0.06}
FAR = 0.5
DEFECTIVE = re.compile(r"fmoe_(bf16|fp16)_pertokenFp8_g1u1_vs_silu_1tg_32x128")
"""Kernels whose loop over the output lacks the writes to local memory that all other tiles have: the last 256 columns
alone come out."""


def kernels() -> list[Path]:
    kernel_path("fmoe_stage1_bf16_pertokenFp8_g1u1_16x128_4tg_pf2", "gfx942")  # skips without the wheel
    return sorted(hsa_folder().rglob("fmoe*.co"))


def named_in_a_table(path: Path) -> bool:
    """Return whether AITER can pick a kernel; others of the wheel's files give wrong numbers with every layout."""
    return any(path.name in table.read_text(encoding="utf-8") for table in path.parent.glob("*.csv"))


def test_kernels_drawn_at_random_decode_and_are_modelled() -> None:
    for path in random.Random(SEED).sample(kernels(), SAMPLE):
        assert not Program(CodeObject.read(path)).not_modelled(), path


def test_a_kernel_of_every_family_gives_the_numbers_with_the_usual_layouts() -> None:
    by_kind: dict[tuple[str, KernelKind], list[Path]] = defaultdict(list)
    for path in kernels():
        try:
            kind = kind_of(path.stem)
        except DeriveError:
            continue
        no_f16_arithmetic = kind.family.scale == "none" and kind.family.output == "f16"
        if named_in_a_table(path) and not no_f16_arithmetic and not DEFECTIVE.fullmatch(path.stem):
            by_kind[path.parts[-4 if path.parent.name in ("silu", "gelu") else -3], kind].append(path)
    assert len(by_kind) > 100
    chosen = random.Random(SEED)
    for (_, kind), paths in chosen.sample(sorted(by_kind.items(), key=lambda item: str(item[1])), 60):
        path = chosen.choice(paths)
        deriver = KernelDeriver(AssemblyKernel(CodeObject.read(path), path.stem), Registry.load().book)
        trial = deriver.numbers()
        right = {role: deriver.usual_layout(role) for role in kind.family.roles}
        wrong = {**right, "w13_weight": deriver.layouts["sep32"]}
        assert trial.relative_error(right) < CLOSE[kind.family.output], path
        assert trial.relative_error(wrong) > FAR, path
