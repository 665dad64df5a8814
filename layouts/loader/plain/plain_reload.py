"""Reload of laid-out layers by an engine's own loader of plain rows."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import torch

from preshuffle.layouts.loader.aiter_authority import Backend
from preshuffle.layouts.loader.apply import apply, check_backend_and_scratch, inverse
from preshuffle.layouts.loader.findings import check_findings
from preshuffle.layouts.loader.pads import Pads, check_pads_argument
from preshuffle.layouts.loader.result import AITER_TAG, retag
from preshuffle.layouts.loader.target import RoleTensors, Target, folded_roles
from preshuffle.layouts.moves import SCRATCH_BYTES, inference_writable
from preshuffle.layouts.stamps import (
    Stamp,
    check_known,
    check_role,
    check_writable,
    exclusive,
    forget_copies,
    put_stamp,
    stamp_of,
    verified_stamp_of,
    watch,
)
from preshuffle.layouts.tensors import as_bytes, untraced
from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.finding import FindingCode

_ONE_LEVEL: Final = frozenset({"fold", "fold_max"})


@contextmanager
def plain_reload(
    target: Target,
    decision: Decision,
    *,
    backend: Backend = "auto",
    last_rank: bool = False,
    pads: Pads = "refuse",
    allow: Collection[FindingCode] = (),
) -> Iterator[Mapping[Role, torch.Tensor]]:
    """Give a layer plain tensors that an engine's own loader writes to.

    Inside the block the target holds plain tensors of the shapes and dtypes that were laid out first, with the
    attributes of its parameters (``weight_loader``). They begin with the rows that are laid out now, or with zeros
    where those cannot be restored. At the end of the block what they hold is laid out into the old storage: the same
    objects, addresses, strides and tags stand in the target, so graphs that were captured before may be replayed. Until
    then the laid-out bytes stay as they are; where the block raises, for good. The layer takes its plain size in memory
    meanwhile, twice.

    Args:
        target: laid out, stamped tensors.
        decision: of which the new rows are laid out; it gives the same sizes as the last one.
        backend: as for ``apply``.
        last_rank: as for ``apply``.
        pads: as for ``apply``.
        allow: as for ``apply``.

    Yields:
        The plain tensors by role.

    Raises:
        LayoutError: a tensor is not laid out, or a precondition of ``apply`` does not hold. Nothing is changed then.
    """
    tensors, laid, plain = _begin(target, decision, backend, pads, allow)
    originals = _exchange_all(tensors, plain)
    loaded: dict[str, torch.Tensor] = {}
    try:
        yield plain
        _take(tensors, laid, loaded)
    finally:
        _restore(target, originals)
    _finish(target, tensors, laid, loaded, decision, backend, last_rank, pads, allow)


@untraced
def _begin(
    target: Target, decision: Decision, backend: Backend, pads: Pads, allow: Collection[FindingCode]
) -> tuple[RoleTensors, dict[Role, torch.Tensor], dict[Role, torch.Tensor]]:
    """Check everything that can be checked now; return the laid-out tensors, and plain ones."""
    check_backend_and_scratch(decision, backend, SCRATCH_BYTES)
    check_pads_argument(pads)
    check_findings(decision, allow)
    tensors = RoleTensors(target)
    with exclusive(target, tensors.values):
        tensors.check_roles(decision.tensors, folded_roles(decision))
        laid = {role: tensors[role] for role in tensors.present(decision.tensors)}
        plain = {}
        for role, tensor in laid.items():
            stamp = verified_stamp_of(tensor)
            if stamp is not None:
                check_known(role, tensor, stamp)
            if stamp is None or stamp.state != "applied":
                raise LayoutError(f"{role} is not laid out ({stamp.state if stamp else 'no stamp'}): nothing to reload")
            check_role(role, stamp)
            if _ONE_LEVEL & set(stamp.steps):
                raise LayoutError(f"{role} was folded from two scales: load them, and apply the decision to them")
            check_writable(role, tensor)
            plain[role] = _plain(role, tensor, stamp)
    return tensors, laid, plain


def _plain(role: Role, tensor: torch.Tensor, stamp: Stamp) -> torch.Tensor:
    copied: dict[str, torch.Tensor] = {role: copy.deepcopy(tensor.detach())}
    forget_copies(copied[role])
    put_stamp(copied[role], stamp)
    try:
        inverse(copied)
    except LayoutError:  # a step of the recipe has lost something
        return torch.zeros(stamp.source_shape, dtype=torch.uint8, device=tensor.device).to(stamp.source_dtype)
    forget_copies(copied[role])
    return copied[role]


@untraced
def _exchange_all(tensors: RoleTensors, plain: Mapping[Role, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put plain tensors into the target; return what stood there, by name."""
    return {tensors.names[role]: _exchange(tensors, role, tensor) for role, tensor in plain.items()}


@untraced
def _take(tensors: RoleTensors, laid: Mapping[Role, torch.Tensor], loaded: dict[str, torch.Tensor]) -> None:
    """Read what stands in the target now: a loader may have replaced a parameter's data."""
    loaded.update({role: tensors[role].detach() for role in laid})


@untraced
def _restore(target: Target, originals: Mapping[str, torch.Tensor]) -> None:
    for name, original in originals.items():
        _place(target, name, original)


def _exchange(tensors: RoleTensors, role: Role, plain: torch.Tensor) -> torch.Tensor:
    """Put a plain tensor into the target, with the attributes of what stood there; return that."""
    target, name = tensors.target, tensors.names[role]
    original: torch.Tensor = getattr(target, name) if isinstance(target, torch.nn.Module) else target[name]
    attributes = {key: value for key, value in vars(original).items() if key != AITER_TAG}
    shown = plain
    if isinstance(original, torch.nn.Parameter):
        shown = torch.nn.Parameter(plain, requires_grad=False)
    shown.__dict__.update(attributes)
    forget_copies(shown)
    _place(target, name, shown)
    return original


def _place(target: Target, name: str, tensor: torch.Tensor) -> None:
    if not isinstance(target, torch.nn.Module):
        target[name] = tensor
    elif name in target._parameters and isinstance(tensor, torch.nn.Parameter):
        target._parameters[name] = tensor  # the very object: setattr would refuse another shape in some engines
    elif name in target._buffers:
        target._buffers[name] = tensor
    else:
        setattr(target, name, tensor)


@untraced
def _finish(
    target: Target,
    tensors: RoleTensors,
    laid: dict[Role, torch.Tensor],
    fresh: dict[str, torch.Tensor],
    decision: Decision,
    backend: Backend,
    last_rank: bool,
    pads: Pads,
    allow: Collection[FindingCode],
) -> None:
    """Lay out what was loaded, and copy its bytes into the old storage."""
    with exclusive(target, tensors.values):
        apply(fresh, decision, backend=backend, last_rank=last_rank, pads=pads, allow=allow)
        for role, tensor in laid.items():
            new = fresh[role]
            if (tuple(new.shape), new.element_size()) != (tuple(tensor.shape), tensor.element_size()):
                raise LayoutError(f"{role} would be {tuple(new.shape)}; laid out is {tuple(tensor.shape)}")
        for role, tensor in laid.items():
            stamp = stamp_of(fresh[role])
            assert stamp is not None
            put_stamp(tensor, replace(stamp, state="broken"))
            with inference_writable(tensor):
                as_bytes(tensor.detach()).copy_(as_bytes(fresh[role].detach()))
            put_stamp(tensor, stamp)
            watch(tensor)
        retag(target)
