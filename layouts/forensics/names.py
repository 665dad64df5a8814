"""Text descriptions of hypotheses and fixes of faults."""

from __future__ import annotations

from typing import Final

from preshuffle.layouts.forensics.hypotheses import Fault, Hypothesis, HypothesisSpace, RowPads

_PADS: Final[dict[RowPads, str]] = {
    "each half": "",
    "tail": "pad rows all at the tail instead of behind each half",
    "head": "pad rows before the live rows",
    "head of each half": "pad rows before each half",
}

FIXES: Final[dict[Fault, str]] = {
    "applied_twice": "load the plain bytes again and lay them out once; a stamp or tag was lost between the two",
    "two_layouts": "load the plain bytes again; two parts of the loader lay this tensor out, keep one of them",
    "other_kind": "lay weights out with a weight's layout, and scales with a scale's",
    "element_units": "lay out the bytes, not the elements: view the tensor as uint8 first",
    "row_order": "tell the loader the row order that the checkpoint has (gate_up_order)",
    "gate_up_swapped": "gate rows come first, then up rows",
    "pad_placement": "pad each half of w13 behind its own rows, and K behind its values",
    "experts_merged": "lay out each expert by itself: pass the number of experts",
    "flat_copy": "copy row by row into the padded tensor, not as one run of bytes",
    "other_rank": "this rank has loaded another rank's part",
    "cut_through_groups": "cut the dimension in whole groups, so that no two ranks share a scale",
    "rows_missed": "slice the checkpoint by what a rank loads, not by the padded size; what is between is on no rank",
    "other_cut": "cut as the query's shard says, or state as shard how the loader really cuts",
    "other_slot": "load the shared expert into its slot and lay it out as the routed experts",
    "mixed_experts": "lay out all experts in the same way: write the others with write_expert, or load all again",
}
"""What to do about each fault."""


def describe_hypothesis(hypothesis: Hypothesis, space: HypothesisSpace) -> str:
    """Describe a hypothesis in one line.

    For example ``gui16, rows read as GGUU though the checkpoint's are GUGU``.
    """
    parts = [_layouts(hypothesis, space), *_order(hypothesis, space), *_pads(hypothesis, space), *_share(hypothesis)]
    return ", ".join(part for part in parts if part)


def _layouts(hypothesis: Hypothesis, space: HypothesisSpace) -> str:
    steps = hypothesis.steps
    if not steps:
        return "plain"
    ids = [step.layout.id for step in steps]
    if len(steps) == 2:
        return f"{ids[0]} applied twice" if ids[0] == ids[1] else f"{ids[0]}, then {ids[1]} on top"
    text = ids[0]
    if "other_kind" in hypothesis.faults:
        text += " (a layout of " + ("weights" if space.group_scale else "scales") + ")"
    if steps[0].unit > 1:
        text += f" counted in elements of {steps[0].unit} bytes"
    if "experts_merged" in hypothesis.faults:
        text += " on all experts as if they were one"
    return text


def _order(hypothesis: Hypothesis, space: HypothesisSpace) -> list[str]:
    if space.frame.halves == 1:
        return []
    parts = []
    if hypothesis.write == "GUGU":
        as_stored = space.order in (hypothesis.read, None) and hypothesis.read == "GUGU"
        parts.append("rows left alternating" if as_stored else f"rows read as {hypothesis.read} and alternated")
    elif space.order not in (hypothesis.read, None):
        parts.append(f"rows read as {hypothesis.read} though the checkpoint's are {space.order}")
    elif space.order is None:
        parts.append(f"rows read as {hypothesis.read}")
    if hypothesis.write == "UUGG":
        parts.append("up before gate")
    return parts


def _pads(hypothesis: Hypothesis, space: HypothesisSpace) -> list[str]:
    if hypothesis.packing == "bytes":
        return ["copied flat to the beginning of a larger buffer"]
    parts = []
    if hypothesis.packing == "rows":
        parts.append("experts packed, pads at the flattened tail")
    elif space.frame.halves == 1 and hypothesis.row_pads == "tail":
        parts.append("")
    else:
        parts.append(_PADS[hypothesis.row_pads])
    if hypothesis.k_pad_first:
        parts.append("the pad of K before the live values")
    return parts


def _share(hypothesis: Hypothesis) -> list[str]:
    tp_rank, tp, ep_rank, ep = hypothesis.share.ranks
    parts = []
    if tp > 1:
        parts.append(f"tp rank {tp_rank} of {tp}")
    if ep > 1:
        parts.append(f"ep rank {ep_rank} of {ep}")
    if hypothesis.share.by_buffer and parts:
        parts.append("slices of the size of a rank's buffer")
    if "rows_missed" in hypothesis.faults:
        parts.append("slices that begin at the padded size and end at the unpadded one")
    if "cut_through_groups" in hypothesis.faults:
        parts.append("cut through groups that share a scale")
    if "other_cut" in hypothesis.faults:
        parts.append("cut in another way than the query's shard says")
    if parts and "other_rank" in hypothesis.faults:
        parts.append("not the rank that was expected")
    return parts
