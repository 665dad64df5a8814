"""Writer of one rank's plain roles back into a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch

from preshuffle.layouts.checkpoint.part import Part
from preshuffle.layouts.checkpoint.role_reader import linear_names
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import CheckpointTensor

Target = Callable[[str], torch.Tensor]
"""Returns a stored tensor by its name, all of it, to be written to."""


def write_role(
    target: Target, role: Role, entry: CheckpointTensor, layer: int, part: Part, plain: torch.Tensor
) -> None:
    """Write a rank's plain tensor to where it was read.

    The inverse of ``RoleReader.role``, but for input scales of gate and up, of which only the larger was read.

    Args:
        target: the checkpoint's tensors.
        role: which.
        entry: how the checkpoint stores it.
        layer: which layer.
        part: what the rank took; its experts are those of ``plain``.
        plain: as ``RoleReader.role`` returned it.
    """
    if not entry.per_expert:
        _write_merged(target(entry.name.format(layer=layer)), role, part, plain)
        return
    names = [linear_names(entry, layer, expert) for expert in range(part.experts.start, part.experts.stop)]
    if part.shared:
        names.append([name.format(layer=layer) for name in entry.shared])
    for expert, parts in zip(plain, names, strict=True):
        _write_linear([target(name) for name in parts], role, entry, part, expert)


def _write_merged(stored: torch.Tensor, role: Role, part: Part, plain: torch.Tensor) -> None:
    """Write experts' rows of one tensor of all experts."""
    experts = slice(part.experts.start, part.experts.stop)
    columns, intermediate = part.columns, part.sizes[1]
    plain = _as_stored(plain, stored.dtype)
    if role.startswith("w13"):
        if part.query.gate_up_order == "GUGU":
            _copy(stored[experts, 2 * columns.start : 2 * columns.stop], plain[:, : 2 * columns.size])
            return
        for number, half in enumerate((0, intermediate)):
            first = number * part.share
            target = stored[experts, half + columns.start : half + columns.stop]
            _copy(target, plain[:, first : first + columns.size])
        return
    if role == "w2_bias":
        if part.tp_rank == 0:
            _copy(stored[experts], plain)
        return
    size, rest = stored.shape[2], prod(stored.shape[3:])
    first, last = (edge * size // intermediate for edge in (columns.start, columns.stop))
    _copy(stored[experts, :, first:last], plain[:, :, : (last - first) * rest])


def _write_linear(
    stored: Sequence[torch.Tensor], role: Role, entry: CheckpointTensor, part: Part, plain: torch.Tensor
) -> None:
    """Write one expert's linear layer, gate's part before up's."""
    if role.endswith("_input_scale"):
        for target in stored:
            _copy(target, plain.expand(target.numel()) if plain.dim() == 0 else plain)
        return
    for number, target in enumerate(stored):
        if plain.dim() == 0 or (plain.dim() == 1 and len(stored) > 1):
            _copy(target, plain if plain.dim() == 0 else plain[number])
            continue
        rows = plain.shape[0] // len(stored)
        piece = plain[number * rows : (number + 1) * rows]
        if entry.packed > 1:
            piece = pack_int32(piece)
        _write_piece(target, role, entry, part, _as_stored(piece, target.dtype))


def _write_piece(target: torch.Tensor, role: Role, entry: CheckpointTensor, part: Part, piece: torch.Tensor) -> None:
    wanted = part.linear_shape(role, entry)
    if not wanted:
        _copy(target, piece)
        return
    is_w13 = role.startswith("w13")
    first, last, _ = part.cut_of(wanted[0 if is_w13 else 1])
    if is_w13:
        _copy(target[first:last], piece[: last - first])
    elif target.dim() < 2 or wanted[1] == 1:
        _copy(target, piece)
    else:
        _copy(target[:, first:last], piece[:, : last - first])


def _as_stored(plain: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return plain if plain.dtype == dtype or plain.dtype.itemsize != dtype.itemsize else plain.view(dtype)


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy bytes to a part of a stored tensor, whose shape may have other dimensions."""
    if target.numel():
        target.copy_(_as_stored(source, target.dtype).reshape(target.shape))


def pack_int32(values: torch.Tensor) -> torch.Tensor:
    """Pack int8 values of int4 into int32 words of eight, undoing ``unpack_int32``.

    Example:
        >>> pack_int32(torch.tensor([[-8, -7, -6, -5, -4, -3, -2, -1]], dtype=torch.int8)).tolist()
        [[1985229328]]
    """
    nibbles = (values.to(torch.int32) + 8).unflatten(-1, (-1, 8))
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    words: torch.Tensor = (nibbles << shifts).sum(-1, dtype=torch.int64)
    return words.to(torch.int32)
