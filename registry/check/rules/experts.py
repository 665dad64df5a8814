"""Rules on experts: their number, sizes and expert mask.

Code: contract_mismatch.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.words import Role
from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.entries import ModelEntry
from preshuffle.registry.layer import WEIGHTS, MoELayer, shared_experts_of
from preshuffle.registry.values.finding import Finding

_PADDED = 256
"""Greatest multiple to which engines pad sizes before they make the weights."""
_MASK = "https://github.com/vllm-project/vllm/pull/47158"


def counts(evidence: Evidence) -> Iterator[Finding]:
    """Yield a number of experts that a rank cannot have.

    A rank holds its share of the routed experts, and those shared experts that can run as experts of the layer: of the
    routed ones' quantization and size, or taken by the engine all the same. Redundant experts (EPLB) make any number
    possible.
    """
    layer = evidence.layer
    totals = _totals(layer)
    if layer.applied.eplb:
        return
    if layer.model is None:
        yield from _of_unknown_model(layer)
    if layer.model is None or not totals:
        return
    possible = possible_counts(layer)
    known_ep = "ep" in layer.stated
    for role in WEIGHTS:
        tensor = layer.tensors.get(role)
        shape = tensor.observation.logical_shape if tensor else None
        if shape is None or len(shape) != 3 or (shape[0] in possible if known_ep else shape[0] <= max(totals)):
            continue
        apart, expected = _apart(layer, layer.model), _either(possible)
        yield Finding.of(
            "contract_mismatch",
            f"{role} holds {shape[0]} experts; a rank of {layer.model.id} at ep {layer.query.ep} has {expected}{apart}",
            role=role,
            expected=expected,
            actual=str(shape[0]),
            fix="load the routed experts alone, and run a shared expert of another quantization beside them",
            evidence=layer.model.evidence,
        )
        return
    yield from _on_all_ranks(layer, totals)


def sizes(evidence: Evidence) -> Iterator[Finding]:
    """Yield unpadded sizes of weights that contradict the query, or each other.

    A size up to the next multiple of 256 may be an engine's own padding, and K may be counted in packed bytes.
    """
    layer = evidence.layer
    w13, w2 = (_logical(layer, role) for role in WEIGHTS)
    hidden = _certain(layer, "hidden_size")
    seen: list[tuple[Role, str, int, int]] = []
    if hidden is not None:
        seen += [("w13_weight", "a hidden size of", w13[2], hidden)] if w13 else []
        seen += [("w2_weight", "a hidden size of", w2[1], hidden)] if w2 else []
    whole = _certain(layer, "intermediate_size")
    if whole is not None:
        seen += [("w2_weight", "an intermediate size of", w2[2], whole)] if w2 else []
        seen += [("w13_weight", "an intermediate size of", w13[1] // layer.halves, whole)] if w13 else []
    if w13 and w2:
        seen += [("w2_weight", "experts:", w2[0], w13[0])]
    for role, what, actual, expected in seen:
        wrong = actual != expected if what == "experts:" else _contradicts(what, actual, expected)
        if wrong:
            text = f"w13_weight has {expected}" if what == "experts:" else f"the layer has {expected}"
            yield Finding.of(
                "contract_mismatch",
                f"{role} has {what} {actual}; {text}",
                role=role,
                expected=str(expected),
                actual=str(actual),
                fix="load the checkpoint that the query names, and state the parallelism that the weights were cut for",
            )
            return


def _contradicts(what: str, actual: int, expected: int) -> bool:
    """Say whether a size is neither the expected one nor a padded or packed form of it.

    A rank has the whole intermediate size at most; what its share is, its engine's way of cutting decides.
    """
    most = -(-expected // _PADDED) * _PADDED
    if what == "an intermediate size of":
        return actual > most
    return not expected <= actual <= most and actual not in {expected // packed for packed in (2, 8)}


def _certain(layer: MoELayer, name: str) -> int | None:
    """Return a size that the query states itself: of a model's name there may be smaller copies."""
    size: int | None = getattr(layer.query, name) if name in layer.stated else None
    return size


def _logical(layer: MoELayer, role: Role) -> tuple[int, ...] | None:
    tensor = layer.tensors.get(role)
    shape = tensor.observation.logical_shape if tensor else None
    return shape if shape is not None and len(shape) == 3 else None


def _apart(layer: MoELayer, model: ModelEntry) -> str:
    """Say why a shared expert must not take a slot; empty where it may."""
    if not model.shared_experts:
        return "; a shared expert, if there is one, must stay apart"
    if model.shared_weight_dtype is not None:
        dtype = layer.query.weight_dtype or model.weight_dtype
        return f"; its shared expert is {model.shared_weight_dtype} and must stay apart from {dtype} slots"
    if model.shared_intermediate_size is not None:
        return f"; its shared expert is {model.shared_intermediate_size} wide and must stay apart"
    return ""


def _of_unknown_model(layer: MoELayer) -> Iterator[Finding]:
    """Yield a rank that misses experts, or holds all; shared experts may come on top."""
    total, ep = layer.query.num_experts, layer.query.ep
    if total is None or "ep" not in layer.stated:
        return
    for role in WEIGHTS:
        tensor = layer.tensors.get(role)
        shape = tensor.observation.logical_shape if tensor else None
        if shape is not None and len(shape) == 3 and (shape[0] < total // ep or (ep > 1 and shape[0] >= total)):
            yield Finding.of(
                "contract_mismatch",
                f"{role} holds {shape[0]} experts; a rank has {total // ep} of the {total} experts at ep {ep}",
                role=role,
                expected=str(total // ep),
                actual=str(shape[0]),
                fix="load a rank's own experts, and pass the number of all experts as num_experts",
            )
            return


def _on_all_ranks(layer: MoELayer, totals: tuple[int, ...]) -> Iterator[Finding]:
    """Yield local experts whose sum is not the layer's number of experts."""
    local = layer.applied.local_experts
    if local is None or "ep" not in layer.stated or len(local) != layer.query.ep or sum(local) in totals:
        return
    expected = _either(set(totals))
    yield Finding.of(
        "contract_mismatch",
        f"the ranks hold {sum(local)} experts together; the layer has {expected}",
        expected=expected,
        actual=str(list(local)),
        fix="give each routed expert to one rank, and each rank its own copy of fused shared experts",
        evidence=layer.model.evidence if layer.model else (),
    )


def _totals(layer: MoELayer) -> tuple[int, ...]:
    """Return the possible numbers of experts on all ranks; empty if unknown."""
    model, total = layer.model, layer.query.num_experts
    if model is None or total is None or "num_experts" in model.unverified:
        return ()
    routed = total if "num_experts" in layer.stated else model.num_experts or total
    shared, slots = shared_experts_of(model), layer.slots
    takes = shared is None or shared.alike or slots.may_fuse
    return (total, routed, routed + model.shared_experts * layer.query.ep if takes else routed)


def possible_counts(layer: MoELayer) -> frozenset[int]:
    """Return how many experts one rank may hold; empty if unknown."""
    ep = layer.query.ep
    return frozenset(share for count in _totals(layer) for share in (count // ep, -(-count // ep)))


def _either(values: frozenset[int] | set[int]) -> str:
    return " or ".join(map(str, sorted(values)))


def expert_map(evidence: Evidence) -> Iterator[Finding]:
    """Yield an expert map of another kind than the kernel takes."""
    passed = evidence.layer.applied.expert_map
    if passed is None:
        return
    for run in evidence.runs:
        entry = evidence.backends.find(run.backend or ("aiter" if run.reader == "aiter" else None))
        wanted = "mask" if run.reader == "aiter" else entry.expert_map if entry and run.reader == "own" else None
        if wanted is not None and wanted != passed:
            yield Finding.of(
                "contract_mismatch",
                f"the expert map is {'a 0/1 mask' if passed == 'mask' else 'an index map'}; {run.name} takes "
                f"{'a 0/1 mask' if wanted == 'mask' else 'an index map'}",
                expected=wanted,
                actual=passed,
                fix="ask the kernel that was chosen which kind it takes, not a global switch",
                evidence=("https://github.com/vllm-project/vllm/pull/49758",),
            )
            return


def expert_mask(evidence: Evidence) -> Iterator[Finding]:
    """Yield an expert mask whose ones are not the rank's experts."""
    layer = evidence.layer
    ones = layer.applied.mask_ones
    if ones is None or layer.applied.expert_map == "index":
        return
    for rank, count in enumerate(ones):
        reason = _wrong_mask(layer, count, len(ones) > 1)
        if reason:
            local = layer.local_experts
            yield Finding.of(
                "contract_mismatch",
                f"the expert mask{f' of rank {rank}' if len(ones) > 1 else ''} has {count} ones: {reason}",
                expected=f"{local} ones" if local is not None else "as many ones as the rank holds experts",
                actual=f"{count} ones",
                fix="make the mask once, from the index map (expert_map > -1): of a mask, that is ones throughout",
                evidence=(_MASK,),
            )
            return


def _wrong_mask(layer: MoELayer, ones: int, of_any_rank: bool) -> str:
    """Return what is wrong with a mask of so many ones; empty where nothing is."""
    ep = layer.query.ep if "ep" in layer.stated else None
    total, size = layer.query.num_experts, layer.applied.mask_size
    throughout = (size is not None and ones >= size) or (total is not None and ones >= total)
    if ep is not None and ep > 1 and throughout:
        return f"every expert counts as local, and a rank holds only its share at ep {ep}"
    possible = _allowed_ones(layer, of_any_rank)
    if possible and ones not in possible:
        return f"the rank holds {_either(possible)} experts"
    if not possible and ep is not None and total is not None and ones < total // ep:
        return f"a rank has {total // ep} of the {total} experts at ep {ep}"
    return ""


def _allowed_ones(layer: MoELayer, of_any_rank: bool) -> frozenset[int]:
    """Return how many ones a rank's mask may have; empty if unknown."""
    shapes = [layer.tensors[role].observation.logical_shape for role in WEIGHTS if role in layer.tensors]
    local = next((shape[0] for shape in shapes if shape is not None and len(shape) == 3), None)
    if local is None:
        return possible_counts(layer) if "ep" in layer.stated and not layer.applied.eplb else frozenset()
    dummies = sum(slot < local for slot in layer.applied.dummy_slots)
    ragged = {local - 1, local, local + 1} if of_any_rank and _is_ragged(layer) else {local}
    return frozenset(count - less for count in ragged for less in {0, dummies})


def _is_ragged(layer: MoELayer) -> bool:
    """Whether ranks may hold one expert more or less than others."""
    total = layer.query.num_experts
    return total is None or total % layer.query.ep != 0
