"""What the book records as derived: the wheel's very files, and what a derivation gives."""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import version

import pytest

from preshuffle.layouts.derive import find_kernel
from preshuffle.registry import Registry
from preshuffle.registry.kernels import DerivedReads, KernelEvidence
from support.kernels import deriver_of, kernel_path

BOOK = Registry.load().book
RECORDED = {
    id: (entry, entry.known)
    for id, entry in BOOK.kernel_evidence.items()
    if isinstance(entry.known, DerivedReads) and entry.known.compiled_by is None
}
DERIVED_HERE = ("asm_stage1.fp8_block.gfx942", "asm_stage1.fp8_routed.gfx950")


def recorded(id: str) -> tuple[KernelEvidence, DerivedReads]:
    entry, known = RECORDED[id]
    kernel_path(known.kernel, known.arch)  # skips without the wheel
    if known.aiter != version("amd-aiter"):
        pytest.skip(f"amd-aiter {known.aiter} is not installed")
    return entry, known


@pytest.mark.parametrize("id", RECORDED)
def test_the_recorded_checksum_is_that_of_the_wheels_file(id: str) -> None:
    _, known = recorded(id)
    assert sha256(find_kernel(known.kernel, arch=known.arch).read_bytes()).hexdigest() == known.sha256


@pytest.mark.parametrize("id", DERIVED_HERE)
def test_a_derivation_gives_what_is_recorded_and_what_the_family_claims(id: str) -> None:
    entry, known = recorded(id)
    result = deriver_of(known.kernel, known.arch).derive(numbers=False)
    assert (result.sha256, result.book_family) == (known.sha256, entry.family)
    assert {role: found.layout for role, found in result.roles.items()} == dict(entry.reads)
    assert {found.verdict for found in result.roles.values()} == {"agrees"}
