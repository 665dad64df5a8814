"""Apply decisions to a layer's tensors, and undo them."""

from preshuffle.layouts.loader.aiter_authority import can_import, compare_layouts_with_aiter, load_aiter_function
from preshuffle.layouts.loader.apply import apply, inverse
from preshuffle.layouts.loader.expert import expert_view, write_expert
from preshuffle.layouts.loader.findings import check_findings
from preshuffle.layouts.loader.geometry import flat_rows_of
from preshuffle.layouts.loader.input_checks import source_shape, torch_shape
from preshuffle.layouts.loader.int4 import pack_int4
from preshuffle.layouts.loader.job import Job, check_undo, prepare_job, undo_layout
from preshuffle.layouts.loader.plain import plain_reload, plain_view
from preshuffle.layouts.loader.planning import JobPlan, plan_job, read_part
from preshuffle.layouts.loader.reload import begin_reload, finish_reload, relayout
from preshuffle.layouts.loader.result import AITER_TAG, ApplyResult, describe, retag
from preshuffle.layouts.loader.single import apply_layout, invert_layout, layout_from, layout_of
from preshuffle.layouts.loader.target import RoleTensors, Target, folded_roles, role_names

__all__ = [
    "AITER_TAG",
    "ApplyResult",
    "Job",
    "JobPlan",
    "RoleTensors",
    "Target",
    "apply",
    "apply_layout",
    "begin_reload",
    "can_import",
    "check_findings",
    "check_undo",
    "compare_layouts_with_aiter",
    "describe",
    "expert_view",
    "finish_reload",
    "flat_rows_of",
    "folded_roles",
    "inverse",
    "invert_layout",
    "layout_from",
    "layout_of",
    "load_aiter_function",
    "pack_int4",
    "plain_reload",
    "plain_view",
    "plan_job",
    "prepare_job",
    "read_part",
    "relayout",
    "retag",
    "role_names",
    "source_shape",
    "torch_shape",
    "undo_layout",
    "write_expert",
]
