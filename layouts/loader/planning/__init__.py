"""Plans of tensors' moves, cached by shape and dtype."""

from preshuffle.layouts.loader.planning.job_plan import JobPlan, plan_job
from preshuffle.layouts.loader.planning.part import read_part

__all__ = ["JobPlan", "plan_job", "read_part"]
