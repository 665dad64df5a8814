"""Rule on the call: arguments that the kernel takes differently.

Code: contract_mismatch.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Evidence, at
from preshuffle.registry.check.deployment.kernel_runs import KernelRun
from preshuffle.registry.check.rules import experts
from preshuffle.registry.check.rules.layouts import reads_otherwise
from preshuffle.registry.layer import SCALES, WEIGHTS, MoELayer, either_of
from preshuffle.registry.loading import Book
from preshuffle.registry.values.finding import Finding

_BIASES = ("w13_bias", "w2_bias")
_DEFAULT_CLAMPS = {"Swiglu": 7.0}
"""What AITER's kernels clamp an activation to where swiglu_limit is 0 or left out."""
_LLAMA4 = "https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/models/llama4.py"
_SCALE_DTYPES = {
    "per_1x32": ("e8m0", "uint8"),
    "per_1x128": ("fp32",),
    "per_Token": ("fp32",),
    "per_Tensor": ("fp32",),
}


def contract_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Yield arguments of the call that the kernel takes differently."""
    for entry, runs in evidence.contracts:
        if entry.code == "contract_mismatch":
            message = f"{entry.says} ({runs[0].name} {at(runs)})"
            yield Finding.of(entry.code, message, role=entry.role, fix=entry.fix, evidence=entry.evidence)
    yield from experts.counts(evidence)
    yield from experts.sizes(evidence)
    yield from experts.expert_map(evidence)
    yield from experts.expert_mask(evidence)
    yield from _label(evidence)
    yield from _bias(evidence)
    yield from _router_weight(evidence)
    yield from _limit(evidence)
    yield from _dtypes(evidence)
    yield from _activations(evidence)


def _label(evidence: Evidence) -> Iterator[Finding]:
    """Yield scales that differ from the ``swizzle_mx_scale`` label passed."""
    name = evidence.layer.applied.swizzle_mx_scale
    label = evidence.backends.label(name)
    if label is None or not any(run.reader == "own" for run in evidence.runs):
        return
    if label.archs and evidence.layer.query.arch not in label.archs:
        yield Finding.of(
            "contract_mismatch",
            f"swizzle_mx_scale={name} is a label of {either_of(label.archs)}, not of {evidence.layer.query.arch}",
            expected=f"a label of {evidence.layer.query.arch}",
            actual=name,
            fix="take the label that shuffle_scale_moe returned for this GPU",
            evidence=label.evidence,
        )
    expected = either_of(label.layouts)
    for role in SCALES:
        tensor = evidence.layer.tensors.get(role)
        if tensor is not None and tensor.layout is not None and reads_otherwise(evidence.layer, tensor, label.layouts):
            yield Finding.of(
                "contract_mismatch",
                f"swizzle_mx_scale={name} says that scales are {expected}; the bytes are {tensor.layout.id}",
                role=role,
                expected=expected,
                actual=tensor.layout.id,
                fix="pass the label that belongs to the bytes, from the same place that laid them out",
                evidence=label.evidence,
            )


def _bias(evidence: Evidence) -> Iterator[Finding]:
    layer = evidence.layer
    if layer.query.bias and layer.applied.bias_passed is False:
        yield Finding.of(
            "contract_mismatch",
            "the model has expert biases, and none are passed to the kernel: they are dropped without a word",
            role="w13_bias",
            expected="bias1 and bias2 passed",
            actual="not passed",
            fix="pass w13_bias and w2_bias as fp32",
        )
    if not (layer.query.bias and layer.applied.bias_passed):
        return
    ignoring = [
        run for run in evidence.runs if run.reader == "aiter" and not run.blocked and _ignores_bias(evidence, run)
    ]
    if ignoring:
        yield Finding.of(
            "contract_mismatch",
            f"biases are passed, and {ignoring[0].name} {at(ignoring)} drops them without a word",
            role="w13_bias",
            expected="a kernel that adds biases (FlyDSL, CK-Tile)",
            actual=ignoring[0].name,
            fix="take a gate_mode, or table rows, whose kernels add biases",
        )


def _ignores_bias(evidence: Evidence, run: KernelRun) -> bool:
    owners = (evidence.layer.book.families.by_id.get(id) for id in run.families)
    return any(owner is not None and "bias" in owner.ignores for owner in owners)


def _router_weight(evidence: Evidence) -> Iterator[Finding]:
    """Yield a router weight that was multiplied elsewhere than the model does."""
    layer = evidence.layer
    on_input = layer.query.router_weight_on_input
    if on_input is None and layer.model is None:
        return
    wanted, done = "input" if on_input else "output", _weighted(layer)
    if done is None or done == wanted:
        return
    yield Finding.of(
        "contract_mismatch",
        f"the router's weight multiplies an expert's {done}; the model was trained with it on the {wanted}",
        expected=f"router weight on the {wanted}",
        actual=f"on the {done}",
        fix=f"pass doweight_stage1={str(wanted == 'input').lower()}"
        + (", or multiply the hidden states and pass ones" if wanted == "input" else ""),
        evidence=(_LLAMA4,),
    )


def _weighted(layer: MoELayer) -> str | None:
    """Return where the router's weights were multiplied; None where it is not known.

    A kernel that leaves them out may follow an engine that multiplied them before.
    """
    if layer.applied.router_weight is not None:
        return layer.applied.router_weight
    in_stage1 = layer.doweight_stage1
    if in_stage1 is None:
        return None
    if in_stage1:
        return "input"
    engine = layer.query.engine.name if layer.query.engine else None
    return None if engine in _engines_that_weight(layer) else "output"


def _engines_that_weight(layer: MoELayer) -> frozenset[str]:
    """Return the engines of whose recipes some multiply the router's weights themselves."""
    return layer.memo.get("engines that weight the input", (), lambda: frozenset(_weighting(layer.book)))


def _weighting(book: Book) -> Iterator[str]:
    for prepared in book.rule_index.prepared:
        if prepared.recipe is not None and prepared.recipe.call.router_weight.by == "caller":
            yield from map(str, prepared.conditions["engine"].values if "engine" in prepared.conditions else ())


def _limit(evidence: Evidence) -> Iterator[Finding]:
    """Yield a clamp that differs from the model's.

    Where the model's value is unverified, only a missing clamp counts.
    """
    layer, passed = evidence.layer, evidence.layer.applied.swiglu_limit
    wanted, given = layer.query.swiglu_limit, "swiglu_limit" in layer.stated
    if passed is None or wanted is None or passed == wanted or _is_default_clamp(evidence, passed, wanted):
        return
    if passed and not given and layer.model is not None and "swiglu_limit" in layer.model.unverified:
        return
    none = " (no clamp, or everything clamped to zero, by kernel)" if passed == 0 else ""
    yield Finding.of(
        "contract_mismatch",
        f"swiglu_limit={passed:g} is passed{none}; the model was trained with {wanted:g}",
        expected=f"{wanted:g}",
        actual=f"{passed:g}",
        fix=f"pass swiglu_limit={wanted:g}",
        evidence=("https://github.com/ROCm/ATOM/pull/1304",),
    )


def _is_default_clamp(evidence: Evidence, passed: float, wanted: float) -> bool:
    """Return whether AITER's kernels clamp as wanted where 0 is passed."""
    kernels = evidence.readers() == {"aiter"}
    return kernels and passed == 0 and wanted == _DEFAULT_CLAMPS.get(evidence.layer.query.activation or "")


def _dtypes(evidence: Evidence) -> Iterator[Finding]:
    """Yield tensors of a dtype that AITER does not take.

    Another backend may take others.
    """
    if "aiter" not in evidence.readers():
        return
    layer, fp8 = evidence.layer, evidence.layer.arch.fp8 if evidence.layer.arch else None
    allowed: dict[str, tuple[str, ...]] = {role: ("fp32",) for role in _BIASES if layer.applied.bias_passed}
    scales = _SCALE_DTYPES.get(layer.query.quant_type or "") if layer.query.weight_dtype in ("fp4x2", "fp8") else None
    allowed |= dict.fromkeys(SCALES, scales) if scales else {}
    for role in WEIGHTS:
        tensor = layer.tensors.get(role)
        if fp8 and tensor is not None and (tensor.observation.dtype or "").startswith("fp8_"):
            allowed[role] = (fp8,)
    for role, tensor in layer.tensors.items():
        wanted, dtype = allowed.get(role), tensor.observation.dtype
        if wanted is not None and dtype is not None and dtype not in wanted:
            yield Finding.of(
                "contract_mismatch",
                f"{role} is {dtype}; AITER on {layer.query.arch} takes {either_of(wanted)}",
                role=tensor.role,
                expected=either_of(wanted),
                actual=dtype,
                fix=f"convert {role} to {wanted[0]} while loading"
                + (" (fn to fnuz: 0x80 becomes 0, scales double)" if wanted[0].endswith("fnuz") else ""),
            )


def _activations(evidence: Evidence) -> Iterator[Finding]:
    """Yield kernels that take another activation dtype than AITER passes.

    AITER quantizes activations by rules that do not depend on the kernel's name.
    """
    mismatched = [
        run
        for run in evidence.runs
        if run.quantized_to and run.runs_in and run.quantized_to != run.runs_in and not run.blocked
    ]
    if mismatched:
        run = mismatched[0]
        yield Finding.of(
            "contract_mismatch",
            f"AITER quantizes the activations of this call to {run.quantized_to}; "
            f"{run.name} reads them as {run.runs_in}",
            expected=run.runs_in,
            actual=run.quantized_to,
            fix="take a row (or a gate_mode and token bound) whose kernel takes the activations that AITER makes",
            evidence=("https://github.com/ROCm/aiter/pull/2642",),
        )
