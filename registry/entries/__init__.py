"""Entries that a book may hold, one model per section."""

from preshuffle.registry.entries.condition import Condition, Scalar, glob_test
from preshuffle.registry.entries.deployments import (
    BackendEntry,
    Conditional,
    ContractEntry,
    KernelLabelEntry,
    KernelNeedEntry,
    KnownBadEntry,
    PadConventionEntry,
    ScaleLabelEntry,
    SwitchPatternEntry,
    Variant,
)
from preshuffle.registry.entries.engines import EngineEntry
from preshuffle.registry.entries.entry_points import SECOND_LEVEL, FunctionEntry, TargetNamesEntry
from preshuffle.registry.entries.facts import COUNTED, MODEL_NAME, RUN_FACTS, FactCondition, Facts, moe_shape
from preshuffle.registry.entries.fusions import FusionEntry
from preshuffle.registry.entries.model_types import (
    CheckpointTensor,
    ExpertModules,
    ModelTypeEntry,
    QuantizationCase,
    QuantizationEntry,
    StoredDtype,
    StoredTensor,
)
from preshuffle.registry.entries.models import ModelEntry
from preshuffle.registry.entries.platform import (
    AiterFunction,
    ArchEntry,
    FeatureEntry,
    FeatureProbe,
    FlagEntry,
    LayoutEntry,
)
from preshuffle.registry.entries.recipe import (
    PadArgument,
    PadRule,
    PadStep,
    Recipe,
    Requires,
    Tail,
    TensorRecipe,
    multiple_for,
)
from preshuffle.registry.entries.rule import FIELDS, Rule, Specificity, facts_of

__all__ = [
    "COUNTED",
    "FIELDS",
    "MODEL_NAME",
    "RUN_FACTS",
    "SECOND_LEVEL",
    "AiterFunction",
    "ArchEntry",
    "BackendEntry",
    "CheckpointTensor",
    "Condition",
    "Conditional",
    "ContractEntry",
    "EngineEntry",
    "ExpertModules",
    "FactCondition",
    "Facts",
    "FeatureEntry",
    "FeatureProbe",
    "FlagEntry",
    "FunctionEntry",
    "FusionEntry",
    "KernelLabelEntry",
    "KernelNeedEntry",
    "KnownBadEntry",
    "LayoutEntry",
    "ModelEntry",
    "ModelTypeEntry",
    "PadArgument",
    "PadConventionEntry",
    "PadRule",
    "PadStep",
    "QuantizationCase",
    "QuantizationEntry",
    "Recipe",
    "Requires",
    "Rule",
    "Scalar",
    "ScaleLabelEntry",
    "Specificity",
    "StoredDtype",
    "StoredTensor",
    "SwitchPatternEntry",
    "Tail",
    "TargetNamesEntry",
    "TensorRecipe",
    "Variant",
    "facts_of",
    "glob_test",
    "moe_shape",
    "multiple_for",
]
