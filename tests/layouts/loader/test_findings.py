"""Decisions that carry errors are refused, unless the caller allows their codes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, begin_reload, finish_reload, relayout, stamp_of
from preshuffle.registry import Decision, Finding, LayoutError
from support.tensors.moe import decide, in_padded_buffers, plain_tensors


def with_findings(decision: Decision, *codes: str) -> Decision:
    findings = tuple(Finding.of(code, f"{code} happens", fix=f"mend {code}") for code in codes)  # type: ignore[arg-type]
    return decision.model_copy(update={"findings": findings})


GOOD = decide("fp4x2")
BAD = with_findings(GOOD, "known_bad", "untuned", "unsupported")


@pytest.mark.parametrize("allow", [[], ["known_bad"], ("untuned", "pad_fill")])
def test_errors_are_refused_and_named(allow: Any) -> None:
    tensors = plain_tensors(GOOD)
    before = dict(tensors)
    with pytest.raises(LayoutError) as caught:
        apply(tensors, BAD, allow=allow)
    text = str(caught.value)
    assert "unsupported: unsupported happens (fix: mend unsupported)" in text
    assert ("known_bad happens" in text) == ("known_bad" not in allow)
    assert "untuned happens" not in text
    assert f"allow={[*allow, *(code for code in ('known_bad', 'unsupported') if code not in allow)]!r}" in text
    assert all(tensors[role] is before[role] and stamp_of(tensors[role]) is None for role in before)


@pytest.mark.parametrize("allow", [["known_bad", "unsupported"], {"unsupported", "known_bad", "untuned"}])
def test_what_is_allowed_is_laid_out(allow: Any) -> None:
    apply(tensors := plain_tensors(GOOD), BAD, allow=allow)
    apply(wanted := plain_tensors(GOOD), GOOD)
    assert all(tensors[role].view(torch.uint8).equal(wanted[role].view(torch.uint8)) for role in wanted)


def test_warnings_are_never_refused() -> None:
    apply(plain_tensors(GOOD), with_findings(GOOD, "untuned", "flag_unknown"))


@pytest.mark.parametrize(
    ("allow", "message"),
    [
        (["known_bda"], r"allow: unknown code 'known_bda'; did you mean known_bad"),
        (["unsuported", "known_bad"], r"allow: unknown code 'unsuported'; did you mean unsupported"),
        (["zzz"], r"allow: unknown code 'zzz'; valid: layout_mismatch, "),
        ([3], r"allow: unknown code 3; valid: "),
        ("known_bad", r"allow = 'known_bad'; valid: a list of codes"),
        (None, r"allow = None; valid: a list of codes"),
    ],
)
@pytest.mark.parametrize("decision", [GOOD, BAD])
def test_a_code_that_is_none_is_an_error(decision: Decision, allow: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        apply(plain_tensors(GOOD), decision, allow=allow)


def test_a_reload_and_a_relayout_refuse_errors_too() -> None:
    apply(tensors := in_padded_buffers(plain_tensors(GOOD), GOOD), GOOD)
    other = with_findings(decide("bf16"), "known_bad")
    held = {role: tensor.view(torch.uint8).clone() for role, tensor in tensors.items()}
    for _ in range(2):
        with pytest.raises(LayoutError, match=re.escape("allow=['known_bad']")):
            relayout(tensors, other)
    assert all(tensors[role].view(torch.uint8).equal(held[role]) for role in held)
    relayout(tensors, other, allow=["known_bad"])
    begin_reload(tensors)
    with pytest.raises(LayoutError, match=re.escape("allow=['known_bad']")):
        finish_reload(tensors, other)
    assert stamp_of(tensors["w13_weight"]).state == "reloading"  # type: ignore[union-attr]
    finish_reload(tensors, other, allow=["known_bad"])
