"""Predict AITER's fused-MoE kernels and the layouts they read.

Neither a GPU nor AITER is needed. ``dispatch`` follows AITER's own steps for one call; ``tables`` holds its tuned rows,
``aiter_versions`` what differs between versions, ``families`` which bytes each kernel reads, ``survey`` all token
counts of a call, compared and traced.
"""

from preshuffle.registry.kernels.aiter_versions.behaviour import behaviour_of, is_newest
from preshuffle.registry.kernels.aiter_versions.dispatch_book import (
    DISPATCH,
    BehaviourData,
    DispatchBook,
    Tier,
    dispatch_book,
    validated,
)
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice, Stage
from preshuffle.registry.kernels.dispatch.dispatch import activation_bound, dispatch
from preshuffle.registry.kernels.dispatch.stages import RULES
from preshuffle.registry.kernels.errors import TableError
from preshuffle.registry.kernels.families.evidence import (
    EVIDENCE,
    KINDS,
    DerivedReads,
    EvidenceRecord,
    KernelEvidence,
    Kind,
    Known,
    Owner,
    packaged_evidence,
)
from preshuffle.registry.kernels.families.families import Families, RuntimeFacts, packaged_families
from preshuffle.registry.kernels.families.family import Family, KernelTag, Packing
from preshuffle.registry.kernels.families.readers import BackendReader, LayoutReader, ReaderEvidence, readers_of
from preshuffle.registry.kernels.signatures.releases import takes
from preshuffle.registry.kernels.signatures.signature import CALLER, Argument, CallField, Enumeration, Signature
from preshuffle.registry.kernels.signatures.table import SignatureTable, implied_value, packaged_signatures, roles_of
from preshuffle.registry.kernels.survey.buckets import TokenBucket, reachable_buckets, survey
from preshuffle.registry.kernels.survey.compare import (
    SEVERITIES,
    KernelChange,
    Severity,
    Side,
    calls_of,
    changes,
    ranked,
)
from preshuffle.registry.kernels.survey.trace import StageTrace, Trace, says, trace
from preshuffle.registry.kernels.tables.installed import installed_configs, installed_package
from preshuffle.registry.kernels.tables.rows import GFX_OF_CU_NUM, SHARED_CU_NUM, Hazard, Row
from preshuffle.registry.kernels.tables.tables import KernelTables, TableSet

__all__ = [
    "CALLER",
    "DISPATCH",
    "EVIDENCE",
    "GFX_OF_CU_NUM",
    "KINDS",
    "RULES",
    "SEVERITIES",
    "SHARED_CU_NUM",
    "Argument",
    "BackendReader",
    "BehaviourData",
    "CallField",
    "DerivedReads",
    "DispatchBook",
    "DispatchCall",
    "Enumeration",
    "EvidenceRecord",
    "Families",
    "Family",
    "Hazard",
    "KernelChange",
    "KernelChoice",
    "KernelEvidence",
    "KernelTables",
    "KernelTag",
    "Kind",
    "Known",
    "LayoutReader",
    "Owner",
    "Packing",
    "ReaderEvidence",
    "Row",
    "RuntimeFacts",
    "Severity",
    "Side",
    "Signature",
    "SignatureTable",
    "Stage",
    "StageTrace",
    "TableError",
    "TableSet",
    "Tier",
    "TokenBucket",
    "Trace",
    "activation_bound",
    "behaviour_of",
    "calls_of",
    "changes",
    "dispatch",
    "dispatch_book",
    "implied_value",
    "installed_configs",
    "installed_package",
    "is_newest",
    "packaged_evidence",
    "packaged_families",
    "packaged_signatures",
    "ranked",
    "reachable_buckets",
    "readers_of",
    "roles_of",
    "says",
    "survey",
    "takes",
    "trace",
    "validated",
]
