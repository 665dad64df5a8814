"""Plugin of ATOM: call ``register`` before the model is loaded.

ATOM loads no plugins by entry points.
"""

from __future__ import annotations

from preshuffle.layouts.engines.plugins.install import install
from preshuffle.layouts.engines.plugins.wrapping import wrap


def register() -> None:
    """Wrap the conversions of ATOM's MoE layers, if the environment says so.

    It must be called in the process that loads the model.
    """
    install("atom", wrap)
