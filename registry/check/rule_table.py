"""Table of check rules: one per finding code, with its explanation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.check.rules import (
    contract,
    events,
    kernels,
    known_problems,
    layouts,
    loading,
    pads,
    shapes,
    storage,
    switches,
    tags,
)
from preshuffle.registry.values.finding import Finding, FindingCode

Check = Callable[[Evidence], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class CheckRule:
    """One rule of the check.

    Attributes:
        code: the code of its findings.
        check: yields the findings.
        on_call: whether it depends on AITER's call, part of which may not have been observed; its findings count only
            if every possible call has some.
        says: what a finding with this code says.
        why: why it matters, for an operator.
        mend: how to fix it, in general; a finding's own ``fix`` is exact.
        evidence: where this happened, or where it is written.
    """

    code: FindingCode
    check: Check
    on_call: bool
    says: str
    why: str
    mend: str
    evidence: tuple[str, ...]


_AITER, _VLLM = "https://github.com/ROCm/aiter", "https://github.com/vllm-project/vllm"
_ATOM, _SGLANG = "https://github.com/ROCm/ATOM", "https://github.com/sgl-project/sglang"

RULES: tuple[CheckRule, ...] = (
    CheckRule(
        "layout_mismatch", layouts.layout_mismatch, True,
        "Every kernel that can run must read every tensor as it lies, at every token count.",
        "A kernel that reads bytes in another order computes on the wrong weights. Shapes are the same, nothing "
        "raises, the server answers 200 with garbage. gate_mode, w13, its scale and the kernel of every token bucket "
        "must agree; w2 has one layout in all recipes and proves nothing.",
        "Lay the tensor out as the kernel reads it, or pass the gate_mode that belongs to the bytes.",
        (f"{_SGLANG}/pull/26884", f"{_AITER}/blob/main/aiter/fused_moe.py"),
    ),
    CheckRule(
        "fallback_layout", layouts.fallback_layout, False,
        "A fallback backend may take over only bytes that it reads.",
        "A fallback backend reads plain bytes; on laid-out ones it returns garbage exactly when the first backend "
        "failed and nobody looks.",
        "Choose the backend while loading, before bytes move; undo the layout before another kernel takes over.",
        (f"{_SGLANG}/pull/28244",),
    ),
    CheckRule(
        "tag_lost", tags.tag_lost, False,
        "Laid-out bytes need ``is_shuffled`` on the very object that the kernel gets.",
        "AITER knows of a layout only by the attribute is_shuffled, and .view(), .data, .detach(), clone() and "
        "Parameter() drop it. Without it another kernel is picked: one for plain bytes, or none.",
        "Set the tag again on the object that reaches the kernel, after the last re-wrap.",
        (f"{_VLLM}/pull/42061", f"{_VLLM}/pull/49601", f"{_ATOM}/pull/144"),
    ),
    CheckRule(
        "tag_false", tags.tag_false, False,
        "Plain bytes must not carry the tag: kernels for laid-out bytes would read them.",
        "A tag on plain bytes makes kernels read tiles that are not there. Testing hasattr() instead of the value "
        "is how it happens.",
        "Set the tag only where the bytes were laid out, and test its value.",
        (f"{_SGLANG}/blob/main/python/sglang/srt/layers/quantization/mxfp4.py",),
    ),
    CheckRule(
        "double_shuffle", events.double_shuffle, False,
        "No layout is idempotent: a second apply without a reload scrambles the bytes.",
        "No layout is idempotent: applied twice it is neither plain nor laid out. Weight updates in RL hit it at the "
        "second step.",
        "begin_reload before new weights, or apply with again='skip'. The inverse, applied once, repairs live bytes.",
        (f"{_SGLANG}/pull/28963",),
    ),
    CheckRule(
        "raw_write", events.raw_write, False,
        "Plain bytes may not be written over laid-out ones, nor stay where a kernel reads tiles.",
        "Plain rows written into a laid-out buffer land across tiles of other rows.",
        "Write through write_expert, or reload everything and apply again.",
        (f"{_ATOM}/pull/2028",),
    ),
    CheckRule(
        "stale_address", storage.stale_address, False,
        "A captured graph keeps reading the address that a tensor had when it was captured.",
        "A captured graph keeps the addresses it saw; a tensor that moved leaves it reading freed memory.",
        "Update in place, or capture again.",
        (f"{_VLLM}/pull/31258", f"{_VLLM}/issues/54477"),
    ),
    CheckRule(
        "stale_cache", storage.stale_cache, False,
        "Laid-out bytes from a cache are right only for the recipe, AITER, GPU and sharding that they were made "
        "for.",
        "Laid-out bytes are right for one recipe, AITER, GPU and sharding; shapes do not tell them apart.",
        "Key the cache by all of them, and lay out again when one differs.",
        (f"{_SGLANG}/pull/24256", f"{_VLLM}/issues/56049"),
    ),
    CheckRule(
        "pad_required", pads.pad_required, True,
        "Dimensions must be whole tiles of the layout, whole scale groups, and what the kernel's own tiles need.",
        "Layouts and kernels work on whole tiles; a dimension that is cut by tensor parallelism may not be whole.",
        "Pad the dimension with zeros to the size named (of weights, scales and bias), or choose another tp.",
        (f"{_VLLM}/pull/41330", f"{_VLLM}/pull/48173", f"{_AITER}/issues/5444"),
    ),
    CheckRule(
        "pad_fill", pads.pad_fill, False,
        "Padding takes part in the sum: weights and biases must be padded with zeros, scales with anything defined.",
        "Padding is multiplied and summed like live values: weights and biases must be zero there, and a scale must "
        "at least be defined (NaN times zero is NaN).",
        "Allocate zeros, or fill before laying out.",
        (f"{_ATOM}/pull/787",),
    ),
    CheckRule(
        "pad_invalid", pads.pad_invalid, False,
        "A pad that is too large hides live values; one that is neither raw nor rounded down was computed "
        "elsewhere.",
        "Kernels skip as many values as the call says are padding. Too many hides live ones; AITER doubles "
        "intermediate_pad for gate and up itself, so a caller that doubles hides real rows.",
        "Pass the raw pad: physical minus logical, per half of w13.",
        (f"{_VLLM}/pull/44679", f"{_VLLM}/pull/46201"),
    ),
    CheckRule(
        "pad_unreported", pads.pad_unreported, False,
        "A pad of 0 is right (the padding is zeros) but makes the kernel compute on it.",
        "With a pad of 0 kernels compute on the zeros: right, but slower.",
        "Pass the raw pad.",
        (f"{_VLLM}/pull/44679",),
    ),
    CheckRule(
        "scale_shape", shapes.scale_shape, True,
        "A kernel computes the scale's strides from the weight's shape, so both need the same padding.",
        "Kernels derive the scale's strides from the weight's shape. If only one of them is padded, every row but the "
        "first uses foreign scales: fluent text, halved accuracy.",
        "Allocate weight and scale from one padded size; never view a padded scale back.",
        (f"{_SGLANG}/pull/33090",),
    ),
    CheckRule(
        "load_coverage", loading.load_coverage, False,
        "Each rank must load real rows, and together the ranks must load all of the checkpoint's.",
        "Slicing a checkpoint by the padded size runs past its end: the last ranks load nothing, and no error is "
        "raised.",
        "Slice by the checkpoint's own size per rank.",
        (f"{_VLLM}/issues/43865",),
    ),
    CheckRule(
        "source_order_mismatch", loading.source_order_mismatch, False,
        "De-interleaving rows that were apart already (or the reverse) scrambles gate and up, silently.",
        "Checkpoints have gate and up rows in turn (GUGU) or one after the other (GGUU), and no tensor says which. A "
        "loader that assumes the other order scrambles them.",
        "Tell the loader the checkpoint's order; it is in the registry's model entry.",
        (f"{_VLLM}/blob/main/vllm/model_executor/layers/fused_moe/oracle/mxfp4.py",),
    ),
    CheckRule(
        "unsupported", kernels.unsupported, True,
        "There is no kernel for the combination: AITER raises, does not compile it, or has it for other GPUs only.",
        "No kernel exists for the combination: AITER raises, fails to compile, or has it for another GPU.",
        "Take another gate_mode, backend, quantization or GPU, as the finding says.",
        (f"{_AITER}/issues/3227", f"{_VLLM}/issues/40008"),
    ),
    CheckRule(
        "version_unsupported", kernels.version_unsupported, True,
        "AITER or the engine is too old for what was applied.",
        "AITER or the engine is older than a feature that the deployment rests on. Versions are advisory where "
        "builds carry cherry-picks.",
        "Take the version named, or a recipe that does not need the feature.",
        (f"{_AITER}/pull/3871", f"{_AITER}/pull/4130"),
    ),
    CheckRule(
        "flag_conflict", switches.flag_conflict, True,
        "Two switches contradict each other, or a switch says other than what was done.",
        "Two switches ask for different things, or a switch says other than the bytes: one layer of the stack "
        "believes it, another does not.",
        "Set one of them to what was meant; better, let the registry decide and unset both.",
        (f"{_ATOM}/issues/1302",),
    ),
    CheckRule(
        "flag_unknown", switches.flag_unknown, False,
        "A switch that this version does not read changes nothing, whatever it was meant to do.",
        "A switch that this version does not read changes nothing, whatever a recipe page says.",
        "Unset it, or take a version that reads it.",
        (f"{_AITER}/pull/3123", f"{_VLLM}/pull/46474"),
    ),
    CheckRule(
        "known_bad", known_problems.known_bad, True,
        "An entry of the deny-list holds: the combination is known to be wrong or slow.",
        "Everything agrees, and the result is wrong all the same: a kernel, a shape or a pair of versions that "
        "is known to fail.",
        "Use the work-around of the entry; it names the thread.",
        (f"{_SGLANG}/pull/27201", f"{_AITER}/issues/4788"),
    ),
    CheckRule(
        "contract_mismatch", contract.contract_mismatch, True,
        "Expert map, scale label, bias, clamp and dtypes must be those that the kernel takes.",
        "Besides the layout, kernels take an expert map of one kind, a scale label, biases in fp32, a clamp, "
        "activations of one dtype; what does not fit is dropped or misread.",
        "Derive each argument from the kernel that was chosen.",
        (f"{_VLLM}/pull/49758", f"{_VLLM}/pull/54773"),
    ),
    CheckRule(
        "non_contiguous", storage.non_contiguous, False,
        "Kernels take a pointer and count on dense memory; strides are not passed.",
        "AITER's kernels take a pointer and count on dense memory; a strided view is read as other values.",
        "Make the tensor contiguous before laying it out, and tag the copy.",
        (f"{_AITER}/blob/main/aiter/ops/shuffle.py",),
    ),
    CheckRule(
        "expert_view", storage.expert_view, False,
        "Moving experts one by one needs every expert to be one slice of the tensor.",
        "Expert load balancing moves experts as slices of each tensor. Where a tile holds rows of two experts, or the "
        "tensor is a view, a slice carries foreign bytes.",
        "Pad each expert to whole tiles, keep tensors dense, or switch balancing off.",
        (f"{_VLLM}/pull/48355", f"{_VLLM}/pull/47220"),
    ),
    CheckRule(
        "untuned", kernels.untuned, True,
        "No row of the loaded tables covers the shape: AITER takes a kernel by heuristic.",
        "No table row covers the shape, so AITER takes a kernel by heuristic: mostly right, often slow, sometimes "
        "untested.",
        "Tune the shape and load its rows.",
        (f"{_AITER}/issues/3852",),
    ),
    CheckRule(
        "numerics_deviation", kernels.numerics_deviation, True,
        "Activations run in fewer bits than the checkpoint wants, or never in what it wants.",
        "AITER derives the activation dtype from gate_mode, activation and token count, not from the checkpoint; "
        "bytes and kernel agree, accuracy need not.",
        "Set the token bounds or the gate_mode that keep the dtype the checkpoint wants.",
        (f"{_ATOM}/pull/713", f"{_VLLM}/pull/46419"),
    ),
    CheckRule(
        "stale_row", kernels.stale_row, False,
        "A kernel name that no family knows is ignored by AITER, and a heuristic kernel runs instead.",
        "A table row whose kernel name no longer exists is skipped without a word.",
        "Retune or rename the row.",
        (f"{_AITER}/pull/5069",),
    ),
    CheckRule(
        "ambiguous_key", kernels.ambiguous_key, True,
        "A table row that two GPUs could use is used here.",
        "Tables without a gfx column answer every GPU with that many compute units.",
        "Give rows their gfx name; use an AITER whose key has it.",
        (f"{_AITER}/pull/3703",),
    ),
)  # fmt: skip
