"""Plugin of SGLang, by its entry point group ``sglang.srt.plugins``."""

from __future__ import annotations

import importlib

from preshuffle.layouts.engines.plugins.install import install
from preshuffle.layouts.engines.plugins.wrapping import Around


def register() -> None:
    """Register hooks for SGLang's MoE layers, if the environment says so.

    SGLang applies them when all plugins are loaded.
    """
    install("sglang", _register_hook)


def _register_hook(target: str, around: Around) -> None:
    hooks = importlib.import_module("sglang.srt.plugins.hook_registry")
    hooks.HookRegistry.register(target, around, hooks.HookType.AROUND)
