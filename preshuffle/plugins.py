"""Entry points of engines' plugins; nothing is imported while they are off."""

from __future__ import annotations

import os

_VARIABLE = "PRESHUFFLE_ENGINE_HOOK"


def vllm() -> None:
    """Register the plugin of vLLM, if the environment says so."""
    if os.environ.get(_VARIABLE):
        from preshuffle.layouts.engines.plugins.vllm import register

        register()


def sglang() -> None:
    """Register the plugin of SGLang, if the environment says so."""
    if os.environ.get(_VARIABLE):
        from preshuffle.layouts.engines.plugins.sglang import register

        register()
