"""What a recipe may not say: steps, tails, pads, row orders and calls that contradict each other or the book."""

from __future__ import annotations

from pathlib import Path

import pytest

from preshuffle.registry import BookError
from support.book.strategies import load_overlay

FP8 = """recipes:
  mine:
    tensors:
      w13_weight: {layout: sep16, dtype: fp8, order: GGUU, is_shuffled: true, steps: [fnuz]}
      w2_weight: {layout: sep16, dtype: fp8, is_shuffled: true, steps: [fnuz]}
      w13_weight_scale: {layout: plain, dtype: fp32, order: GGUU, steps: [fnuz]}
      w2_weight_scale: {layout: plain, dtype: fp32, steps: [fnuz]}
    call: {gate_mode: separated, quant_type: per_1x128}
    evidence: [x]
"""
MX = """recipes:
  mine:
    tensors:
      w13_weight: {layout: sep16, pad: {rows: 128, k: 128}, dtype: fp4x2, order: GGUU, is_shuffled: true}
      w2_weight: {layout: sep16, pad: {rows: 128, k: 128}, dtype: fp4x2, is_shuffled: true}
      w13_weight_scale: {layout: e8, pad: {rows: 128, k: 4}, tail: {rows: 256, k: 8}, dtype: e8m0, order: GGUU}
      w2_weight_scale: {layout: e8, pad: {rows: 128, k: 4}, tail: {rows: 256, k: 8}, dtype: e8m0}
    call: {gate_mode: separated, quant_type: per_1x32}
    evidence: [x]
"""
STEPS = "[{upto: 192, to: 64}, {to: 128}]"
PLAIN = f"""recipes:
  mine:
    tensors:
      w13_weight: {{layout: sep16, pad: {{rows: {STEPS}}}, dtype: bf16, order: GGUU, is_shuffled: true}}
      w2_weight: {{layout: sep16, pad: {{k: {STEPS}}}, dtype: bf16, is_shuffled: true}}
    call: {{gate_mode: separated, quant_type: "No"}}
    evidence: [x]
"""
W13_SCALE = "w13_weight_scale: {layout: plain, dtype: fp32, order: GGUU, steps: [fnuz]}"
TENSOR = FP8.replace("per_1x128", "per_Tensor")
BOTH = "steps: [fnuz, requantize_max]"


@pytest.mark.parametrize("text", [FP8, MX, PLAIN, TENSOR], ids=["fp8", "mx", "plain", "tensor"])
def test_the_recipes_that_these_tests_break_load(tmp_path: Path, text: str) -> None:
    assert "mine" in load_overlay(tmp_path, text).book.recipes


INPUT_SCALE = "w2_input_scale: {layout: plain, dtype: fp32, steps: [reduce_max]}"

WRONG = [
    # steps
    (FP8, W13_SCALE, W13_SCALE.replace(", steps: [fnuz]", ""), "w13_weight names the step fnuz, and w13_weight_scale"),
    (FP8, "is_shuffled: true, steps: [fnuz]}", "is_shuffled: true}", "w13_weight_scale names the step fnuz, and w13_w"),
    (FP8, "order: GGUU, is_shuffled: true, steps: [fnuz]", f"order: GGUU, {BOTH}", "no step for quant_type per_1x128"),
    (FP8, "steps: [fnuz]", "steps: [reduce_max]", "reduce_max is no step for w13_weight; valid: _input_scale"),
    (FP8, "steps: [fnuz]", "steps: [pack_int4]", "pack_int4 is no step for fp8; valid: i4x2"),
    (FP8, "steps: [fnuz]", "steps: [fnuz], default: 1.0", "has a default, and no step folds"),
    (FP8, "steps: [fnuz]", "steps: [fnuz, fnuz]", "each comes once, in the order fnuz"),
    (FP8, "steps: [fnuz]", "steps: [deinterleave_rows]", "tensors.w13_weight.steps.0: 'deinterleave_rows' is not one"),
    (TENSOR, "order: GGUU, is_shuffled: true, steps: [fnuz]", f"order: GGUU, {BOTH}", "w13_weight_scale does not"),
    (TENSOR, "    call", f"      {INPUT_SCALE}\n    call", "w2_weight names the step fnuz, and w2_input_scale does"),
    (TENSOR, "w13_weight_scale: {layout: plain", "w13_weight_scale: {layout: e8", "has one number for each"),
    (PLAIN, "    call", "      w2_weight_scale: {layout: plain, dtype: fp32}\n    call", "quant_type No has no w2"),
    # tails
    (MX, "w13_weight_scale: {layout: e8, pad: {rows: 128, k: 4}, tail: {rows: 256, k: 8}",
     "w13_weight_scale: {layout: e8, pad: {rows: 128, k: 4}, tail: {rows: 256, k: 4}", "tail.k 4 is not a multiple"),
    (MX, "tail: {rows: 256, k: 8}", "tail: {rows: 24, k: 8}", "tail.rows 24 is not a multiple of 32, the tile of e8"),
    (MX, ", tail: {rows: 256, k: 8}", "", "w13_weight_scale: pad.k 4 is not a multiple of 8, the tile of e8"),
    (MX, "is_shuffled: true}", "is_shuffled: true, tail: {rows: 256}}", "only scales of groups of 32 are padded at th"),
    (MX, "w13_weight_scale: {layout: e8,", "w13_weight_scale: {layout: e8_gui16,", "its rows cannot be padded"),
    # pads
    (MX, "e8, pad: {rows: 128, k: 4}", "e8, pad: {rows: 128, k: 8}", "w13_weight_scale to 128 rows and 8"),
    (FP8, "fp8, is_shuffled: true", "fp8, pad: {rows: 64}, is_shuffled: true", "w2_weight is padded to 64 rows and 1"),
    (PLAIN, f"k: {STEPS}", "k: 128", "w13_weight: pad.rows 64 up to 192, 128, and w2_weight's K are padded to 128"),
    (PLAIN, STEPS, "[{to: 128}, {upto: 192, to: 64}]", "steps go from the smallest `upto` to the largest"),
    (PLAIN, STEPS, "[]", "steps go from the smallest `upto` to the largest"),
    (PLAIN, STEPS, "[{upto: 192}]", "tensors.w13_weight.pad.rows.0.to: missing"),
    (PLAIN, STEPS, "'64'", "a multiple of 1 or more is needed, or a list of {upto, to}; found '64'"),
    # row order and call
    (MX, "dtype: fp4x2, order: GGUU", "dtype: fp4x2, order: GUGU", "sep16 with rows that alternate, whose"),
    (MX, "w13_weight: {layout: sep16, pad: {rows: 128, k: 128}, dtype: fp4x2, order: GGUU",
     "w13_weight: {layout: gui16, pad: {rows: 128, k: 128}, dtype: fp4x2, order: GUGU", "alternates single rows"),
    (MX, "quant_type: per_1x32", "quant_type: per_1x32, function: fused_mo", "'fused_mo'; did you mean"),
    (MX, "quant_type: per_1x32", "quant_type: per_1x32, backend: mega", "backend mega does not run behind"),
    (MX, "quant_type: per_1x32", "quant_type: per_1x32, swizzle_mx_scale: CDNA5", "'CDNA5'; did you mean"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "old", "new", "part"), WRONG, ids=range(len(WRONG)))
def test_a_recipe_that_contradicts_itself_does_not_load(
    tmp_path: Path, text: str, old: str, new: str, part: str
) -> None:
    changed = text.replace(old, new, 1)
    assert changed != text
    with pytest.raises(BookError) as caught:
        load_overlay(tmp_path, changed)
    assert part in str(caught.value)


def test_names_of_targets_are_of_roles(tmp_path: Path) -> None:
    text = "target_names:\n  mine: {names: {w13_weights: w}, evidence: [x]}\n"
    with pytest.raises(BookError, match="unknown role 'w13_weights'"):
        load_overlay(tmp_path, text)
