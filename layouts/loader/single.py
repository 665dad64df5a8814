"""Layout of a single tensor: apply and invert."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from preshuffle.layouts.loader.aiter_authority import BACKENDS, Backend, LayoutJob, is_native, run_aiter_function
from preshuffle.layouts.moves import inference_writable, lay_out, take_back
from preshuffle.layouts.stamps import (
    Stamp,
    check_writable,
    enclosing_stamps,
    exclusive,
    extent_of,
    mark_unmapped,
    overlapping_stamps,
    record_location,
    tensors_overlap,
    unfinished,
)
from preshuffle.layouts.tensors import as_bytes, check_memory, dtype_name, untraced
from preshuffle.registry import (
    BoundLayout,
    CopyPlan,
    Layout,
    LayoutError,
    PlainView,
    Registry,
    TensorDecision,
    plan_copy,
)


def layout_of(layout: str | Layout) -> Layout:
    """Return the packaged book's layout of an id or alias.

    Raises:
        LayoutError: there is none; the known ids are named.
    """
    if isinstance(layout, Layout):
        return layout
    if not isinstance(layout, str):
        raise LayoutError(f"a {type(layout).__name__} is no layout; valid: an id or a Layout")
    book = Registry.default().book
    try:
        return book.layout(layout)
    except KeyError:
        raise LayoutError(f"unknown layout {layout!r}; valid: {', '.join(book.layouts)}") from None


def layout_from(record: TensorDecision | Stamp) -> Layout:
    """Return the layout that a decision or stamp names.

    Where it is an overlay's, its line says what it is.
    """
    if record.layout_line is not None:
        return Layout.from_line(record.layout, record.layout_line)
    return layout_of(record.layout)


@untraced
def apply_layout(
    tensor: torch.Tensor,
    layout_id: str | Layout,
    *,
    experts: int | None = None,
    out: torch.Tensor | None = None,
    fill: int | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """Lay a plain tensor out.

    Args:
        tensor: ``[E, rows, K]``, ``[rows, K]``, or ``[E * rows, K]`` with ``experts=E``, in torch's own shape (an
            fp4x2 element is one byte of two values). Rows of w13 are GGUU.
        layout_id: a layout of the book (or an alias), or a ``Layout``.
        experts: how many experts a two-dimensional tensor holds.
        out: contiguous bytes to write into, of the padded size; the result is a view of it. Until all of it is written
            its stamp says ``broken`` (in a mapped file to any process, whatever became of this one); then it has none:
            this function keeps none.
        fill: the byte for padding; without it a dimension that does not divide is an error.
        backend: ``native`` moves the bytes with torch (Triton on a GPU), ``aiter`` calls AITER's function, ``auto`` is
            native unless AITER is here and gives other bytes.

    Returns:
        The laid-out tensor, in the input's shape and dtype, padded where ``fill`` is given and a dimension does not
        divide: rows to the layout's tile (each half of w13 on its own where the layout moves gate and up), K to its
        multiple. Scales whose rows do not fill a tile are padded at the flattened tail, and come back two-dimensional.

    Raises:
        LayoutError: the shape, dtype or ``out`` does not fit. Nothing is written then.

    Example:
        >>> weight = torch.arange(32 * 64, dtype=torch.int32).to(torch.uint8).view(1, 32, 64)
        >>> apply_layout(weight, "sep16")[0, 0, :16].equal(weight[0, 0, :16])
        True
    """
    check_backend(backend)
    _check_dense("the tensor", tensor)
    if isinstance(out, torch.Tensor):
        _check_dense("out", out)
    involved = [one for one in (tensor, out) if isinstance(one, torch.Tensor)]
    with exclusive(object(), lambda: involved):
        return _apply_layout(tensor, layout_of(layout_id), experts, out, fill, backend)


def _apply_layout(
    tensor: torch.Tensor,
    layout: Layout,
    experts: int | None,
    out: torch.Tensor | None,
    fill: int | None,
    backend: Backend,
) -> torch.Tensor:
    _check_input(tensor, fill)
    source = _readable(tensor, layout)
    fit = _fit(tuple(source.shape), source.stride(), source.dtype, layout, _experts(experts), fill)
    result = _result(tensor, fit, out)
    plain = _spanned_bytes(source)
    work = LayoutJob(layout, fit.bound.shape, fit.plan_for, tensor.dtype, fill or 0)
    aiter_bytes = None if is_native(backend, lambda: work, plain) else run_aiter_function(work, plain)
    with unfinished(result, layout) if out is not None else nullcontext(), inference_writable(result):
        if aiter_bytes is None:
            lay_out(fit.plan, plain, as_bytes(result), fill or 0)
        else:
            as_bytes(result).copy_(aiter_bytes)
    return result


@untraced
def invert_layout(
    tensor: torch.Tensor,
    layout_id: str | Layout,
    *,
    experts: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Take a tensor out of a layout, inverting ``apply_layout`` exactly.

    Args:
        tensor: contiguous laid-out bytes.
        layout_id: the layout that they are in.
        experts: how many experts a two-dimensional tensor holds.
        shape: the plain shape before padding; the tensor's own by default.

    Raises:
        LayoutError: the shape does not fit the layout.
    """
    _check_dense("the tensor", tensor)
    valid = isinstance(shape, tuple | list) and all(isinstance(size, int) and size > 0 for size in shape)
    if shape is not None and not valid:
        raise LayoutError(f"shape = {shape!r}; valid: sizes of 1 or more")
    layout = layout_of(layout_id)
    for stamp in overlapping_stamps(tensor):
        if stamp.state != "applied" or layout_from(stamp) != layout:
            raise LayoutError(
                f"the tensor is not laid out as {layout.id}: it is {_state_text(stamp)}{record_location(tensor)}"
            )
    plain = torch.empty(shape or tuple(tensor.shape), dtype=tensor.dtype, device=tensor.device)
    fit = _fit(tuple(plain.shape), plain.stride(), plain.dtype, layout, _experts(experts), 0)
    if fit.nbytes != tensor.numel() * tensor.element_size():
        raise LayoutError(f"{tuple(tensor.shape)} does not hold the {fit.nbytes} bytes of {fit.shape} as {layout.id}")

    take_back(fit.plan, as_bytes(tensor), as_bytes(plain))
    return plain


@dataclass(frozen=True, slots=True)
class _Fit:
    """Padded shape and copy plan of a tensor in a layout."""

    shape: tuple[int, ...]
    bound: BoundLayout
    view: PlainView
    plan: CopyPlan

    def plan_for(self, layout: Layout, experts: int) -> CopyPlan:
        """Plan the first experts' move into any layout.

        Of the same physical shape.
        """
        return plan_copy(layout.bind(experts, *self.bound.shape[1:]), replace(self.view, experts=experts))

    @property
    def nbytes(self) -> int:
        return self.plan.nbytes


def _check_dense(name: str, tensor: torch.Tensor) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise LayoutError(f"a {type(tensor).__name__} is no tensor")
    if tensor.device.type == "meta":
        raise LayoutError(f"{name} is on the meta device: it has no bytes")
    if tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided:
        named = {"quantized": tensor.is_quantized, "nested": tensor.is_nested}
        kind = next((name for name, found in named.items() if found), str(tensor.layout).removeprefix("torch."))
        raise LayoutError(f"{name} is {kind}; valid: a dense tensor of plain bytes")
    check_memory(name, tensor)


def _check_input(tensor: torch.Tensor, fill: int | None) -> None:
    for stamp in overlapping_stamps(tensor):
        if stamp.state == "broken" or (stamp.layout != "plain" and stamp.state != "reloading"):
            raise LayoutError(f"the tensor is {_state_text(stamp)}{record_location(tensor)}")
    if fill is not None and (isinstance(fill, bool) or not isinstance(fill, int) or not 0 <= fill <= 255):
        raise LayoutError(f"fill = {fill!r}; valid: a byte, 0..255")


def _state_text(stamp: Stamp) -> str:
    what = {
        "applied": "laid out already",
        "broken": "left partly laid out",
        "reloading": "being loaded again",
        "unknown": "of unknown layout, written to after it was laid out",
    }
    return f"{what[stamp.state]} ({stamp.layout}, recipe {stamp.recipe})"


def _readable(tensor: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return the tensor where each row is contiguous, else a copy.

    A slice of a larger tensor is read in place.
    """
    if tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
        return tensor.detach()
    plain = tensor.detach().resolve_conj().resolve_neg()
    steps = [stride for size, stride in zip(plain.shape, plain.stride(), strict=True) if size > 1]
    rows_whole = plain.numel() > 0 and steps == sorted(steps, reverse=True) and 0 not in steps
    rows_whole = rows_whole and (plain.shape[-1] == 1 or plain.stride(-1) == 1)
    if layout.unit == "group" and plain.dim() == 3 and plain.shape[0] > 1:  # tiles run over the rows of all experts
        rows_whole = rows_whole and plain.stride(0) == plain.shape[1] * plain.stride(1)
    return plain if rows_whole else plain.contiguous()


def _spanned_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the flat bytes from a tensor's first to its last."""
    if tensor.is_contiguous():
        return as_bytes(tensor)
    begin, end = extent_of(tensor)
    return as_bytes(tensor.as_strided(((end - begin) // tensor.element_size(),), (1,)))


def check_backend(backend: str) -> None:
    """Raise a LayoutError for an unknown backend."""
    if backend not in BACKENDS:
        raise LayoutError(f"unknown backend {backend!r}; valid: {', '.join(BACKENDS)}")


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def _fit(
    given: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: torch.dtype,
    layout: Layout,
    experts: int | None,
    fill: int | None,
) -> _Fit:
    count, rows, k = _dimensions(given, experts)
    item = dtype.itemsize
    if layout.unit == "group" and item != 1:
        raise LayoutError(f"layout {layout.id} is for scales of one byte; found {dtype} ({item} bytes)")
    halves = 2 if layout.pattern.splits_gate_up else 1
    flat = layout.unit == "group" and halves == 1 and rows % layout.row_multiple != 0
    row = strides[-2] * item if given[-2] > 1 else k * item
    expert = strides[0] * item if len(given) == 3 and count > 1 else rows * row
    if flat:
        row = expert // rows
        count, rows = 1, count * rows
    if rows % halves:
        raise LayoutError(f"layout {layout.id}: {rows} rows do not split into gate and up")
    half, k_bytes = rows // halves, k * item
    padded_half, padded_k = _round_up(half, layout.row_multiple), _round_up(k_bytes, layout.k_multiple)
    if fill is None:
        layout.bind(count, halves * half, k_bytes)
    if padded_k % item:
        raise LayoutError(f"layout {layout.id}: K padded to {padded_k} bytes is no whole number of {dtype}")
    bound = layout.bind(count, halves * padded_half, padded_k)
    view = PlainView(count, halves, half, k_bytes, expert, half * row, row)
    padded = (halves * padded_half, padded_k // item)
    shape: tuple[int, ...]
    if (halves * padded_half, padded_k) == (rows, k_bytes):
        shape = given
    elif flat or len(given) == 2:
        shape = (count * padded[0], padded[1])
    else:
        shape = (count, *padded)
    return _Fit(shape, bound, view, plan_copy(bound, view))


def _experts(experts: int | None) -> int | None:
    if experts is not None and (isinstance(experts, bool) or not isinstance(experts, int)):
        raise LayoutError(f"experts = {experts!r}; valid: a whole number")
    return experts


def _dimensions(shape: tuple[int, ...], experts: int | None) -> tuple[int, int, int]:
    if len(shape) == 3:
        if experts not in (None, shape[0]):
            raise LayoutError(f"experts = {experts}, but the tensor {shape} holds {shape[0]}")
        return shape[0], shape[1], shape[2]
    if len(shape) != 2:
        raise LayoutError(f"a tensor of shape {shape}; valid: [E, rows, K], [rows, K], or [E * rows, K] with experts=E")
    count = 1 if experts is None else experts
    if count < 1 or shape[0] % count:
        raise LayoutError(f"{shape[0]} rows are not those of {count} experts")
    return count, shape[0] // count, shape[1]


def _result(tensor: torch.Tensor, fit: _Fit, out: torch.Tensor | None) -> torch.Tensor:
    if out is None:
        new = torch.empty(fit.shape, dtype=tensor.dtype, device=tensor.device)
        check_memory("the result", new)
        mark_unmapped(new)
        return new
    if not isinstance(out, torch.Tensor):
        raise LayoutError(f"out is a {type(out).__name__}; valid: a tensor")
    if out.device != tensor.device:
        raise LayoutError(f"out is on {out.device}, the tensor on {tensor.device}")
    if out.numel() * out.element_size() != fit.nbytes:
        found = out.numel() * out.element_size()
        raise LayoutError(f"out holds {found} bytes; {fit.nbytes} are needed for {fit.shape} of {tensor.dtype}")
    check_writable("out", out)
    for stamp in enclosing_stamps(out):
        raise LayoutError(
            f"out is a part of what is {_state_text(stamp)}{record_location(out)}; valid: all of it, or other memory"
        )
    if tensors_overlap(tensor, out):
        raise LayoutError("out shares bytes with the tensor")
    if out.data_ptr() % tensor.element_size():
        size = tensor.element_size()
        raise LayoutError(f"out begins at a byte that is no multiple of the {size} of a {dtype_name(tensor.dtype)}")
    return as_bytes(out).view(tensor.dtype).view(fit.shape)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
