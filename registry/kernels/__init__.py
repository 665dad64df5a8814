"""Which kernels AITER's fused MoE runs for a call, and which bytes they read, without a GPU and without AITER."""

from preshuffle.registry.kernels.book import Family, family_book
from preshuffle.registry.kernels.buckets import TokenBucket, reachable_buckets, survey
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice, Stage
from preshuffle.registry.kernels.dispatch import dispatch
from preshuffle.registry.kernels.errors import TableError
from preshuffle.registry.kernels.families import parse_name
from preshuffle.registry.kernels.rows import Hazard, Row
from preshuffle.registry.kernels.tables import KernelTables
from preshuffle.registry.kernels.trace import Trace, trace

__all__ = [
    "DispatchCall",
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
    "family_book",
    "parse_name",
    "reachable_buckets",
    "survey",
    "trace",
]
