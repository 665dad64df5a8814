"""Selection of a runner: AITER, the reference, or a user's function."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from preshuffle.layouts.probe.aiter_runner import AiterRunner, device_arch, why_not_here
from preshuffle.layouts.probe.installed_aiter import aiter_here
from preshuffle.layouts.probe.probe import ProbeError, Runner, reference_laid_out
from preshuffle.registry import Registry
from preshuffle.registry.kernels import TableError

REFERENCE: Final = "reference-laid-out"
AITER: Final = "aiter"
_SHORT: Final = {"reference": REFERENCE}


@dataclass(frozen=True, slots=True)
class ChosenRunner:
    """Runner with its device and the report's notes.

    Attributes:
        arch: the machine's, where the runner needs it.
    """

    name: str
    runner: Runner
    device: str = "cpu"
    arch: str | None = None
    notes: tuple[str, ...] = ()


def choose_runner(name: str = AITER, device: str | None = None, registry: Registry | None = None) -> ChosenRunner:
    """Return the runner of a name.

    Args:
        name: ``aiter``, ``reference-laid-out`` (or ``reference``), or ``module:function``. Nothing stands in for AITER
            where it does not run: a probe that passes without its kernel would say nothing of it.
        device: where a user's function wants its tensors; AITER's are on the GPU.
        registry: whose recipes' needs AITER is probed for; the packaged book's by default.

    Raises:
        ProbeError: AITER does not run here, or the function cannot be imported.
    """
    name = _SHORT.get(name, name)
    if name == AITER:
        reason = why_not_here()
        if reason is not None:
            raise ProbeError(f"AITER does not run here: {reason}; --runner reference proves the bytes without it")
        return ChosenRunner(AITER, AiterRunner(), "cuda", device_arch(), missing_features_note(registry))
    if name == REFERENCE:
        return ChosenRunner(REFERENCE, reference_laid_out, notes=("the reference ran, no kernel of AMD's",))
    return ChosenRunner(name, _imported(name), device or "cpu")


def missing_features_note(registry: Registry | None = None) -> tuple[str, ...]:
    """Return notes on features that recipes need and AITER lacks.

    As the AITER that runs was probed.
    """
    registry = registry or Registry.default()
    recipes = registry.book.recipes.values()
    needed = dict.fromkeys(feature for recipe in recipes for feature in recipe.requires.aiter)
    try:
        here = aiter_here(registry)
    except TableError:  # a tree that nobody installed
        return ()
    missing = [name for name in needed if here["aiter_features"].get(name) is False]
    name = f"AITER {here['aiter']}" if "aiter" in here else "AITER"
    return (f"{name} was probed and has not: {', '.join(missing)}",) if missing else ()


def _imported(name: str) -> Runner:
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ProbeError(f"unknown runner {name!r}; valid: {AITER}, {REFERENCE}, or module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise ProbeError(f"runner {name}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise ProbeError(f"runner {name} is a {type(found).__name__}, no function")
    runner: Runner = found
    return runner
