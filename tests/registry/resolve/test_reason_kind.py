"""Each kind of reason, and the order in which they count."""

from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import Decision
from support.book.strategies import decide, load_overlay

SIZES: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_experts": 8,
    "top_k": 2,
    "bias": False,
    "gate_up_order": "GGUU",
    "activation": "Silu",
}
UNKNOWN = {"model": "acme/moe", "weight_dtype": "fp4x2", "quant_type": "per_1x32", "activation_dtype": "fp4x2", **SIZES}
BF16 = {"model": "acme/moe", "weight_dtype": "bf16", "quant_type": "No", "activation_dtype": "bf16", **SIZES}
SWITCH = "GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT"
OVERLAY = """rules:
  mine:
    when:
      {arch: gfx950, weight_dtype: fp4x2, quant_type: per_1x32, top_k: 4, ep: 1, tp: 1, gated: true, WHEN}
    use: mxfp4.sep16
    priority: 9
    because: a test
    evidence: [x]
"""


@pytest.mark.parametrize(
    ("fields", "rule", "kind"),
    [
        ({"activation_dtype": "fp4x2"}, "gpt-oss.a4w4.gfx950", "exact"),
        (UNKNOWN, "mxfp4.silu.a4w4", "general"),
        ({"engine": "vllm"}, "gpt-oss.vllm", "exact"),
        ({"env": {SWITCH: "1"}}, "gpt-oss.a16w4.gfx950.generic", "switch"),
        ({"env": {SWITCH: "0"}}, "gpt-oss.a16w4.gfx950", "exact"),
        ({**BF16, "engine": "atom"}, "atom.bf16", "engine"),
    ],
)
def test_of_packaged_rules(fields: dict[str, Any], rule: str, kind: str) -> None:
    decision = decide(**fields, tokens=[1])
    assert (decision.rule, decision.reason_kind) == (rule, kind)


@pytest.mark.parametrize(
    "when",
    ["model: openai/gpt-oss-120b, activation_dtype: fp4x2", "model: '*', engine: vllm", f"env: {{{SWITCH}: '1'}}"],
)
def test_an_overlays_rule_is_overlay_whatever_it_tests(tmp_path: Path, when: str) -> None:
    fields = {"engine": "vllm"} if "engine" in when else {"activation_dtype": "fp4x2", "env": {SWITCH: "1"}}
    registry = load_overlay(tmp_path, OVERLAY.replace("WHEN", when))
    decision = decide(registry, **fields, tokens=[1])
    assert (decision.rule, decision.reason_kind) == ("mine", "overlay")


def test_it_is_required_and_closed() -> None:
    shown = decide(tokens=[1]).model_dump()
    with pytest.raises(ValueError, match="reason_kind"):
        Decision.model_validate({name: value for name, value in shown.items() if name != "reason_kind"})
    with pytest.raises(ValueError, match="reason_kind"):
        Decision.model_validate({**shown, "reason_kind": "luck"})
