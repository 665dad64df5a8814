"""Which kernels AITER's fused MoE runs for a call, and which bytes they read, without a GPU and without AITER."""

from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice, Stage
from preshuffle.registry.kernels.dispatch.dispatch import dispatch
from preshuffle.registry.kernels.errors import TableError
from preshuffle.registry.kernels.families.families import Families, packaged_families
from preshuffle.registry.kernels.families.family import Family
from preshuffle.registry.kernels.survey.buckets import TokenBucket, reachable_buckets, survey
from preshuffle.registry.kernels.survey.trace import Trace, trace
from preshuffle.registry.kernels.tables.rows import Hazard, Row
from preshuffle.registry.kernels.tables.tables import KernelTables

__all__ = [
    "DispatchCall",
    "Families",
    "Family",
    "Hazard",
    "KernelChoice",
    "KernelTables",
    "Row",
    "Stage",
    "TableError",
    "TokenBucket",
    "Trace",
    "dispatch",
    "packaged_families",
    "reachable_buckets",
    "survey",
    "trace",
]
