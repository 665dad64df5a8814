"""Probes of kernels: run a golden layer and compare the result."""

from preshuffle.layouts.probe.aiter_runner import why_not_here
from preshuffle.layouts.probe.golden import decide_with_recipe, select_recipes
from preshuffle.layouts.probe.golden_layers import LAYERS as GOLDEN_LAYERS
from preshuffle.layouts.probe.golden_layers import golden_query
from preshuffle.layouts.probe.installed_aiter import aiter_here
from preshuffle.layouts.probe.probe import ProbeError, ProbeReport, ProbeResult, probe, reference_laid_out
from preshuffle.layouts.probe.runners import choose_runner

__all__ = [
    "GOLDEN_LAYERS",
    "ProbeError",
    "ProbeReport",
    "ProbeResult",
    "aiter_here",
    "choose_runner",
    "decide_with_recipe",
    "golden_query",
    "probe",
    "reference_laid_out",
    "select_recipes",
    "why_not_here",
]
