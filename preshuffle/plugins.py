"""Entry points of engines' plugins; nothing is imported while they are off.

ATOM loads no plugins: ``python -m preshuffle.plugins atom.entrypoints.openai_server …`` starts it with its own. Every
process that it spawns imports this module again, as the main one, before it does anything else.
"""

from __future__ import annotations

import os
import sys

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


def atom() -> None:
    """Register the plugin of ATOM, if the environment says so."""
    if os.environ.get(_VARIABLE):
        from preshuffle.layouts.engines.plugins.atom import register

        register()


def launch(module: str, *arguments: str) -> None:
    """Run a module of ATOM's as ``python -m`` does, with its plugin.

    The plugin is in this process and in those that it spawns.
    """
    from runpy import run_module

    atom()
    sys.argv = [module, *arguments]
    run_module(module, run_name="__main__")


if __name__ == "__mp_main__":
    atom()
if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m preshuffle.plugins MODULE [ARGUMENTS]; such as atom.entrypoints.openai_server")
    launch(*sys.argv[1:])
