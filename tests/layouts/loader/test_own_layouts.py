"""Layouts of overlays: the loader lays out what the decision means.

Whatever the packaged book calls by the same id.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from preshuffle.layouts import (
    apply,
    begin_reload,
    expert_view,
    finish_reload,
    inverse,
    prove,
    relayout,
    stamp_of,
    stamps_from_metadata,
    stamps_to_metadata,
    write_expert,
)
from preshuffle.layouts.proof.reference import fetch_expert
from preshuffle.registry import Decision, Layout, LayoutError, Registry
from support.tensors.moe import decide, gpt_oss, plain_tensors

FIELDS = {"hidden_size": 256, "intermediate_size": 256}
LINES = {
    "an id that the book has": {"sep16": "e (nt n8) (kt k32) -> e nt kt n8 k32"},
    "columns of tiles first": {"sep16": "e (nt n16) (kt k16) -> e kt nt n16 k16"},
}


def resolved(folder: Path, patterns: dict[str, str]) -> Decision:
    lines = [f'  {name}: {{pattern: "{pattern}", unit: byte, k_multiple: 32}}' for name, pattern in patterns.items()]
    (folder / "layouts.yaml").write_text("\n".join(["layouts:", *lines, ""]))
    return Registry.load([folder]).resolve(gpt_oss("fp4x2", **FIELDS), kernels=False)


@pytest.fixture(params=LINES)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Decision, Layout]:
    patterns = LINES[request.param]
    return resolved(tmp_path, patterns), Layout.of("sep16", patterns["sep16"], "byte", 32)


def test_the_bytes_lie_as_the_overlay_says(own: tuple[Decision, Layout]) -> None:
    decision, layout = own
    plain = plain_tensors(decision)
    apply(tensors := {role: tensor.clone() for role, tensor in plain.items()}, decision)
    wanted = plain["w2_weight"][1]
    assert fetch_expert(tensors["w2_weight"].view(torch.uint8), layout, (4, 256, 128), 1).equal(wanted)
    assert [check for check in prove(plain, tensors, decision) if not check.ok] == []


def test_they_live_as_others_do(own: tuple[Decision, Layout]) -> None:
    decision, _ = own
    plain = plain_tensors(decision)
    apply(tensors := {role: tensor.clone() for role, tensor in plain.items()}, decision)
    laid = {role: tensor.view(torch.uint8).clone() for role, tensor in tensors.items()}
    stamps_from_metadata(later := {"w2_weight": laid["w2_weight"].clone()}, stamps_to_metadata(tensors))
    inverse(later)
    assert later["w2_weight"].equal(plain["w2_weight"])

    write_expert(tensors, 1, "w2_weight", plain["w2_weight"][1])
    assert tensors["w2_weight"].view(torch.uint8).equal(laid["w2_weight"])
    assert expert_view(tensors, "w2_weight", 1).view(torch.uint8).equal(laid["w2_weight"][1])
    begin_reload(tensors)
    for role, tensor in tensors.items():
        (tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor).copy_(plain[role])
    finish_reload(tensors, decision)
    assert all(tensor.view(torch.uint8).equal(laid[role]) for role, tensor in tensors.items())


def test_going_over_to_the_packaged_layout_of_the_same_name_moves_bytes(own: tuple[Decision, Layout]) -> None:
    decision, packaged = own[0], decide("fp4x2", **FIELDS)
    assert decision.decision_digest != packaged.decision_digest
    plain = plain_tensors(decision)
    apply(tensors := {role: tensor.clone() for role, tensor in plain.items()}, decision)
    with pytest.raises(LayoutError, match="laid out already"):
        apply(tensors, packaged, again="skip")
    relayout(tensors, packaged)
    apply(wanted := {role: tensor.clone() for role, tensor in plain.items()}, packaged)
    assert all(tensors[role].view(torch.uint8).equal(wanted[role].view(torch.uint8)) for role in wanted)
    stamp = stamp_of(tensors["w2_weight"])
    assert stamp is not None
    assert stamp.layout_line is None


def test_a_decision_of_the_packaged_book_needs_no_line() -> None:
    assert {tensor.layout_line for tensor in decide("fp4x2").tensors.values()} == {None}


@pytest.mark.parametrize("layout_id", sorted(Registry.default().book.layouts))
def test_a_layout_is_read_back_from_its_line(layout_id: str) -> None:
    layout = Registry.default().book.layout(layout_id)
    assert Layout.from_line(layout_id, layout.line) == layout


@pytest.mark.parametrize(
    "line", ["", "e n k -> e n k", "e n k -> e n k; byte", "e n k -> e n k; bits; 1", "e n; byte; 1"]
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(LayoutError, match=r"no line of a layout|needs one '->'"):
        Layout.from_line("mine", line)
