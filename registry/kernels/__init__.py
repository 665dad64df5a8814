"""Which kernels AITER's fused MoE runs for a call, and which bytes they read, without a GPU and without AITER."""

from preshuffle.registry.kernels.buckets import TokenBucket, reachable_buckets, survey
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice, Stage
from preshuffle.registry.kernels.dispatch import dispatch
from preshuffle.registry.kernels.errors import TableError
from preshuffle.registry.kernels.families import Families, packaged_families
from preshuffle.registry.kernels.family import Family
from preshuffle.registry.kernels.rows import Hazard, Row
from preshuffle.registry.kernels.tables import KernelTables
from preshuffle.registry.kernels.trace import Trace, trace

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
