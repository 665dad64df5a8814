"""Apply decisions to a layer's tensors, and undo them."""

from preshuffle.layouts.loader.aiter_authority import load_aiter_function
from preshuffle.layouts.loader.apply import apply, inverse
from preshuffle.layouts.loader.expert import expert_view, write_expert
from preshuffle.layouts.loader.input_checks import source_shape, torch_shape
from preshuffle.layouts.loader.reload import begin_reload, finish_reload, relayout
from preshuffle.layouts.loader.result import AITER_TAG, ApplyResult, describe, retag
from preshuffle.layouts.loader.single import apply_layout, invert_layout, layout_from, layout_of
from preshuffle.layouts.loader.target import RoleTensors, Target, role_names

__all__ = [
    "AITER_TAG",
    "ApplyResult",
    "RoleTensors",
    "Target",
    "apply",
    "apply_layout",
    "begin_reload",
    "describe",
    "expert_view",
    "finish_reload",
    "inverse",
    "invert_layout",
    "layout_from",
    "layout_of",
    "load_aiter_function",
    "relayout",
    "retag",
    "role_names",
    "source_shape",
    "torch_shape",
    "write_expert",
]
