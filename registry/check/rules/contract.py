"""contract_mismatch: an argument of the call, other than the layout, that the kernel takes differently."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Look, at
from preshuffle.registry.check.deployment.kernel_runs import Run
from preshuffle.registry.check.deployment.observed_layer import SCALES, WEIGHTS, any_of
from preshuffle.registry.check.rules.layouts import reads_otherwise
from preshuffle.registry.values.finding import Finding

_BIASES = ("w13_bias", "w2_bias")
_SCALE_DTYPES = {
    "per_1x32": ("e8m0", "uint8"),
    "per_1x128": ("fp32",),
    "per_Token": ("fp32",),
    "per_Tensor": ("fp32",),
}


def contract_mismatch(look: Look) -> Iterator[Finding]:
    """Expert map, scale label, bias, clamp and dtypes must be those that the kernel takes."""
    for entry, runs in look.contracts:
        if entry.code == "contract_mismatch":
            message = f"{entry.says} ({runs[0].what} {at(runs)})"
            yield Finding.of(entry.code, message, role=entry.role, fix=entry.fix, evidence=entry.evidence)
    yield from _expert_map(look)
    yield from _label(look)
    yield from _bias(look)
    yield from _limit(look)
    yield from _dtypes(look)
    yield from _activations(look)


def _expert_map(look: Look) -> Iterator[Finding]:
    given = look.scene.applied.expert_map
    if given is None:
        return
    for run in look.runs:
        entry = look.backends.find(run.backend or ("aiter" if run.reader == "aiter" else None))
        wanted = "mask" if run.reader == "aiter" else entry.expert_map if entry and run.reader == "own" else None
        if wanted is not None and wanted != given:
            yield Finding.of(
                "contract_mismatch",
                f"the expert map is {'a 0/1 mask' if given == 'mask' else 'an index map'}; {run.what} takes "
                f"{'a 0/1 mask' if wanted == 'mask' else 'an index map'}",
                expected=wanted,
                actual=given,
                fix="ask the kernel that was chosen which kind it takes, not a global switch",
                evidence=("https://github.com/vllm-project/vllm/pull/49758",),
            )
            return


def _label(look: Look) -> Iterator[Finding]:
    """The label of Triton's ``swizzle_mx_scale`` says how the scales lie; they must lie so."""
    name = look.scene.applied.swizzle_mx_scale
    label = look.backends.label(name)
    if label is None or not any(run.reader == "own" for run in look.runs):
        return
    if label.archs and look.scene.query.arch not in label.archs:
        yield Finding.of(
            "contract_mismatch",
            f"swizzle_mx_scale={name} is a label of {any_of(label.archs)}, not of {look.scene.query.arch}",
            expected=f"a label of {look.scene.query.arch}",
            actual=name,
            fix="take the label that shuffle_scale_moe returned for this GPU",
            evidence=label.evidence,
        )
    for role in SCALES:
        seen = look.scene.tensors.get(role)
        if seen is not None and seen.layout is not None and reads_otherwise(look.scene, seen, label.layouts):
            yield Finding.of(
                "contract_mismatch",
                f"swizzle_mx_scale={name} says that scales are {any_of(label.layouts)}; the bytes are {seen.layout.id}",
                role=role,
                expected=any_of(label.layouts),
                actual=seen.layout.id,
                fix="pass the label that belongs to the bytes, from the same place that laid them out",
                evidence=label.evidence,
            )


def _bias(look: Look) -> Iterator[Finding]:
    scene = look.scene
    if scene.query.bias and scene.applied.bias_passed is False:
        yield Finding.of(
            "contract_mismatch",
            "the model has expert biases, and none are passed to the kernel: they are dropped without a word",
            role="w13_bias",
            expected="bias1 and bias2 passed",
            actual="not passed",
            fix="pass w13_bias and w2_bias as fp32",
        )
    if not (scene.query.bias and scene.applied.bias_passed):
        return
    deaf = [run for run in look.runs if run.reader == "aiter" and not run.blocked and _ignores_bias(look, run)]
    if deaf:
        yield Finding.of(
            "contract_mismatch",
            f"biases are passed, and {deaf[0].what} {at(deaf)} drops them without a word",
            role="w13_bias",
            expected="a kernel that adds biases (FlyDSL, CK-Tile)",
            actual=deaf[0].what,
            fix="take a gate_mode, or table rows, whose kernels add biases",
        )


def _ignores_bias(look: Look, run: Run) -> bool:
    owners = (look.scene.book.families.by_id.get(id) for id in run.families)
    return any(owner is not None and "bias" in owner.ignores for owner in owners)


def _limit(look: Look) -> Iterator[Finding]:
    """The model's clamp must be passed; a value of it that rests on general knowledge condemns nothing but none."""
    given, model = look.scene.applied.swiglu_limit, look.scene.model
    wanted = model.swiglu_limit if model else None
    if model is None or given is None or wanted is None or given == wanted:
        return
    if given and "swiglu_limit" in model.unverified:
        return
    none = " (no clamp, or everything clamped to zero, by kernel)" if given == 0 else ""
    yield Finding.of(
        "contract_mismatch",
        f"swiglu_limit={given:g} is passed{none}; the model was trained with {wanted:g}",
        expected=f"{wanted:g}",
        actual=f"{given:g}",
        fix=f"pass swiglu_limit={wanted:g}",
        evidence=("https://github.com/ROCm/ATOM/pull/1304",),
    )


def _dtypes(look: Look) -> Iterator[Finding]:
    """AITER checks or assumes these dtypes; another backend may take others."""
    if "aiter" not in look.readers():
        return
    scene, fp8 = look.scene, look.scene.arch.fp8 if look.scene.arch else None
    allowed: dict[str, tuple[str, ...]] = {role: ("fp32",) for role in _BIASES if scene.applied.bias_passed}
    scales = _SCALE_DTYPES.get(scene.query.quant_type or "") if scene.query.weight_dtype in ("fp4x2", "fp8") else None
    allowed |= dict.fromkeys(SCALES, scales) if scales else {}
    for role in WEIGHTS:
        seen = scene.tensors.get(role)
        if fp8 and seen is not None and (seen.what.dtype or "").startswith("fp8_"):
            allowed[role] = (fp8,)
    for role, seen in scene.tensors.items():
        wanted, dtype = allowed.get(role), seen.what.dtype
        if wanted is not None and dtype is not None and dtype not in wanted:
            yield Finding.of(
                "contract_mismatch",
                f"{role} is {dtype}; AITER on {scene.query.arch} takes {any_of(wanted)}",
                role=seen.role,
                expected=any_of(wanted),
                actual=dtype,
                fix=f"convert {role} to {wanted[0]} while loading"
                + (" (fn to fnuz: 0x80 becomes 0, scales double)" if wanted[0].endswith("fnuz") else ""),
            )


def _activations(look: Look) -> Iterator[Finding]:
    """A named kernel takes activations of one dtype; AITER quantizes them by rules that do not look at the name."""
    wrong = [run for run in look.runs if run.given and run.runs_in and run.given != run.runs_in and not run.blocked]
    if wrong:
        run = wrong[0]
        yield Finding.of(
            "contract_mismatch",
            f"AITER quantizes the activations of this call to {run.given}; {run.what} reads them as {run.runs_in}",
            expected=run.runs_in,
            actual=run.given,
            fix="take a row (or a gate_mode and token bound) whose kernel takes the activations that AITER makes",
            evidence=("https://github.com/ROCm/aiter/pull/2642",),
        )
