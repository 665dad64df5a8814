"""Installation of a plugin: mode, known releases, wrapped functions."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Final, Literal, get_args

from preshuffle.layouts.engines.environment import installed_engine
from preshuffle.layouts.engines.plugins.hook import EngineHook
from preshuffle.layouts.engines.plugins.wrapping import Around
from preshuffle.layouts.engines.shipped_books import registry_here
from preshuffle.registry import Registry
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.entries import ConversionFacts, EngineLayerEntry

VARIABLE: Final = "PRESHUFFLE_ENGINE_HOOK"
"""Environment variable that turns the plugins on: ``shadow`` or ``replace``."""
Mode = Literal["shadow", "replace"]

log = logging.getLogger("preshuffle.plugins")

# Process-wide: engines may load a plugin again, and a wrapped class is the process's.
_INSTALLED: dict[str, EngineHook] = {}


def install(engine: str, wrap: Callable[[str, Around], None]) -> EngineHook | None:
    """Wrap an engine's conversions as the environment says; once per process.

    Nothing is raised: what goes wrong is logged, and the engine stays as it is.

    Args:
        engine: its name in the book.
        wrap: replaces the function of a dotted path by one around it.

    Returns:
        The hook that the wrapped functions call; None where the plugin stays off.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return None
    if value not in get_args(Mode):
        log.warning("%s=%r; valid: %s; the plugin stays off", VARIABLE, value, ", ".join(get_args(Mode)))
        return None
    if engine in _INSTALLED:
        return _INSTALLED[engine]
    try:
        hook = _install(engine, wrap, replaces=value == "replace")
    except Exception:
        log.exception("the plugin for %s could not be installed; it stays off", engine)
        return None
    if hook is not None:
        _INSTALLED[engine] = hook
    return hook


def _install(engine: str, wrap: Callable[[str, Around], None], *, replaces: bool) -> EngineHook | None:
    registry = registry_here()
    version = installed_engine(registry.book, engine)
    written_for = _conversions(registry, engine)
    fitting = [one for one in written_for if version is not None and _is_for(one, version)]
    if not fitting:
        versions = ", ".join(dict.fromkeys(name for one in written_for for name in one.versions)) or "none"
        log.warning(
            "the plugin was not written for %s %s, only for: %s; it stays off", engine, version or "?", versions
        )
        return None
    hook = EngineHook(f"{engine}@{version}", fitting[-1], registry, replaces=replaces)
    wrapped = [_wrapped(wrap, target, around) for target, around in hook.targets()]
    log.info("%s %s: %d functions are wrapped (%s=%s)", engine, version, sum(wrapped), VARIABLE, os.environ[VARIABLE])
    return hook


def _wrapped(wrap: Callable[[str, Around], None], target: str, around: Around) -> bool:
    """Wrap one function; return whether that worked."""
    try:
        wrap(target, around)
    except Exception as error:  # a module that this platform cannot import holds no layer of it
        log.warning("%s is not wrapped: %s: %s", target, type(error).__name__, error)
        return False
    return True


def _conversions(registry: Registry, engine: str) -> list[ConversionFacts]:
    entries: Iterable[EngineLayerEntry] = registry.book.entries["engine_layers"].values()
    return [entry.conversion for entry in entries if entry.engine == engine and entry.conversion is not None]


def _is_for(conversion: ConversionFacts, version: str) -> bool:
    return version_key(version) in {version_key(known) for known in conversion.versions}
