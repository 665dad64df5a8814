"""AITER's own layout functions: lookup, calls and comparison with ours.

AITER is imported only on a machine with ROCm and only from the distribution ``amd-aiter``: elsewhere its import fails
half way and leaves things behind.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from math import prod
from typing import Final, Literal

import torch

from preshuffle.layouts.moves import lay_out
from preshuffle.layouts.tensors import as_bytes
from preshuffle.registry import CopyPlan, Layout, LayoutError, PlainView, Registry, plan_copy
from preshuffle.registry.entries import AiterFunction

Backend = Literal["auto", "native", "aiter"]
BACKENDS: Final[tuple[Backend, ...]] = ("auto", "native", "aiter")
DISTRIBUTION: Final = "amd-aiter"
Function = Callable[[torch.Tensor, int], torch.Tensor]


class AiterDiffersWarning(UserWarning):
    """AITER's function gives other bytes than the book's layout.

    AITER's bytes are used.
    """


# Process-wide: what is installed does not change while the process runs.
@lru_cache(maxsize=1)
def can_import() -> bool:
    """Return whether AMD's AITER can be imported here.

    It is installed, and there is a GPU with ROCm.
    """
    if torch.version.hip is None or not torch.cuda.is_available():
        return False
    try:
        metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return False
    return True


def load_aiter_function(module: str, name: str) -> Callable[..., torch.Tensor] | None:
    """Import one of AITER's functions, or return None.

    Whether this AITER has it is probed, not derived from a version.
    """
    if not can_import():
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, RuntimeError, OSError):
        return None
    return found if callable(found) else None


def function_for(layout: Layout) -> Function | None:
    """Return AITER's function for a layout, or None.

    It takes plain ``[experts, rows, K]`` bytes.

    The result holds the laid-out bytes first; AITER may add rows behind them.
    """
    entry = Registry.default().book.layouts.get(layout.id)
    for known in entry.aiter if entry and entry.layout() == layout else ():
        if known.archs and _arch() not in known.archs:
            continue
        function = load_aiter_function(known.module, known.name)
        if function is not None:
            return partial(_call, function, known)
    return None


def check_function(layout: Layout) -> Function:
    """Return AITER's function for a layout or raise.

    The plain layout's function returns its input.

    Raises:
        LayoutError: AITER is not here, or has no function for the layout.
    """
    function = _untouched if layout == _plain() else function_for(layout)
    if function is None:
        why = "has no function for it" if can_import() else "cannot be imported here"
        raise LayoutError(f"layout {layout.id}: AITER {why}; use backend native")
    return function


def _untouched(plain: torch.Tensor, experts: int) -> torch.Tensor:
    return plain


def _call(
    function: Callable[..., torch.Tensor], known: AiterFunction, plain: torch.Tensor, experts: int
) -> torch.Tensor:
    given = [experts if argument == "experts" else argument for argument in known.arguments]
    return function(plain.flatten(0, 1) if known.flat else plain, *given)


@dataclass(frozen=True, slots=True)
class LayoutJob:
    """Tensor to lay out, for either backend.

    Attributes:
        layout: into which layout.
        shape: physical ``(experts, rows, K bytes)``.
        plan: plans the move of some of its first experts into a layout; rows come out as GGUU, padded.
        dtype: of the tensor.
        fill: the byte in the pads.
    """

    layout: Layout
    shape: tuple[int, int, int]
    plan: Callable[[Layout, int], CopyPlan]
    dtype: torch.dtype
    fill: int

    def padded(self, plain: torch.Tensor, experts: int) -> torch.Tensor:
        """Return the first experts' plain bytes, in order and padded.

        AITER's functions take this form.
        """
        result = torch.empty((experts, *self.shape[1:]), dtype=torch.uint8, device=plain.device)
        lay_out(self.plan(_plain(), experts), plain, result.view(-1), self.fill)
        return result


def is_native(backend: Backend, describe: Callable[[], LayoutJob], plain: torch.Tensor) -> bool:
    """Return whether our own executors lay out a tensor.

    They do where that is requested, where AITER is not installed, and where its function agrees.

    With ``auto`` the first band of the real tensor is compared with AITER's function, once for each layout, dtype and
    shape; a difference raises an ``AiterDiffersWarning``.

    Args:
        backend: as for ``apply_layout``.
        describe: returns the work, where it is needed.
        plain: flat bytes, the source.
    """
    if backend == "native" or (backend == "auto" and not can_import()):
        return True
    work = describe()
    if work.layout == _plain():
        return True
    return backend == "auto" and not _COMPARISONS.differs(work, plain)


class AiterComparisons:
    """Cache of comparisons with AITER's functions.

    Keyed by layout, dtype and shape.
    """

    def __init__(self) -> None:
        """Create an empty cache."""
        self._differs: dict[tuple[Layout, torch.dtype, tuple[int, int, int]], bool] = {}

    def differs(self, work: LayoutJob, plain: torch.Tensor) -> bool:
        """Return whether AITER's function gives other bytes.

        The first call compares, and warns of a difference.
        """
        key = (work.layout, work.dtype, work.shape)  # an overlay may give an id to another layout
        if key not in self._differs:
            function = function_for(work.layout)
            self._differs[key] = function is not None and not _agrees_with_aiter(work, work.padded(plain, 1), function)
            if self._differs[key]:
                message = f"AITER's function for {work.layout.id} gives other bytes on {work.shape}: AITER's are used"
                warnings.warn(message, AiterDiffersWarning, stacklevel=5)
        return self._differs[key]


# Process-wide: the imported AITER is, and what its functions give does not change while it is loaded.
_COMPARISONS: Final = AiterComparisons()


def run_aiter_function(work: LayoutJob, plain: torch.Tensor) -> torch.Tensor:
    """Lay plain bytes out with AITER's function.

    Args:
        work: what is to be done.
        plain: flat bytes, the source.

    Returns:
        The laid-out flat bytes, in new memory.

    Raises:
        LayoutError: AITER is not here, has no function for the layout, or its function fails.
    """
    function = check_function(work.layout)
    try:
        result = as_bytes(function(work.padded(plain, work.shape[0]), work.shape[0]).contiguous())
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise LayoutError(f"layout {work.layout.id}: AITER's function failed on {work.shape}: {error}") from None
    if result.numel() < (size := prod(work.shape)):
        raise LayoutError(f"layout {work.layout.id}: AITER's function gave {result.numel()} bytes of {size}")
    return result[:size]


def compare_layouts_with_aiter(device: str = "cuda") -> dict[str, str]:
    """Compare every packaged layout with AITER's function.

    On a small tensor of random bytes.

    Returns:
        By layout id: ``equal``, ``differs``, ``refused`` (AITER raises on it) or ``no function`` (this AITER has none).
    """
    verdicts: dict[str, str] = {}
    book = Registry.default().book
    for name in book.layouts:
        layout = book.layout(name)
        shape = (2, 256, 256)
        plain = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        function = function_for(layout)
        if function is None:
            verdicts[name] = "no function"
            continue
        halves = 2 if layout.pattern.splits_gate_up else 1
        view = PlainView(2, halves, 256 // halves, 256, 256 * 256, 256 // halves * 256, 256)
        native = torch.empty_like(plain)
        lay_out(plan_copy(layout.bind(*shape), view), plain.view(-1), native.view(-1), 0)
        try:
            given = as_bytes(function(plain, 2).contiguous())[: native.numel()]
        except (RuntimeError, AssertionError, ValueError, TypeError):
            verdicts[name] = "refused"
            continue
        verdicts[name] = "equal" if given.equal(native.view(-1)) else "differs"
    return verdicts


def _agrees_with_aiter(work: LayoutJob, expert: torch.Tensor, function: Function) -> bool:
    halves = 2 if work.layout.pattern.splits_gate_up else 1
    rows, tile, k = work.shape[1] // halves, work.layout.row_multiple, work.shape[2]
    band = torch.cat([expert[:, half * rows : half * rows + tile] for half in range(halves)], dim=1)
    native = torch.empty_like(band)
    view = PlainView(1, 1, halves * tile, k, 0, 0, k)
    lay_out(plan_copy(work.layout.bind(1, halves * tile, k), view), band.view(-1), native.view(-1), work.fill)
    try:
        given = as_bytes(function(band, 1).contiguous())
    except (RuntimeError, AssertionError, ValueError, TypeError):
        return True  # AITER refuses so small a band: that is no other answer
    return bool(given[: native.numel()].equal(native.view(-1)))


# Process-wide: the packaged book is.
@lru_cache(maxsize=1)
def _plain() -> Layout:
    return Registry.default().book.layout("plain")


def _arch() -> str:
    if not torch.cuda.is_available():
        return ""
    name: str = getattr(torch.cuda.get_device_properties(0), "gcnArchName", "")
    return name.split(":")[0]
