"""Plugin of vLLM, by its entry point group ``vllm.general_plugins``."""

from __future__ import annotations

from preshuffle.layouts.engines.plugins.install import install
from preshuffle.layouts.engines.plugins.wrapping import wrap


def register() -> None:
    """Wrap the conversions of vLLM's MoE layers, if the environment says so."""
    install("vllm", wrap)
