"""Dispatch book: the YAML file of AITER's dispatch behaviour by version.

It is read on its own, when a kernel is predicted.
"""

from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from preshuffle.registry.base.errors import BookError, Problem
from preshuffle.registry.text import Document, field_problems, packaged_document

DISPATCH: Final = "aiter_dispatch.yaml"


class BookModel(BaseModel):
    """Base of the file's entries: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Tier(BookModel):
    """One tier of token counts, and the value that it maps to.

    Counts below ``below`` (None: all others) become ``to``.
    """

    below: int | None = None
    to: int | Literal["pow2"]


class ActivationRule(BookModel):
    """Rule that chooses the activation dtype.

    Attributes:
        when: Allowed values by call field; ``env`` maps variables to allowed values.
        bound: Name of a token bound; below it the answer is ``below``, from it on ``dtype``.
    """

    when: dict[str, Any]
    dtype: str
    below: str | None = None
    bound: str | None = None


class OneStageEntry(BookModel):
    """A combination for which AITER has a 1-stage kernel."""

    activation: tuple[str, ...]
    quant_type: str
    dtype: str
    a: str
    w: str
    g1u1: bool
    doweight: bool = False


class OneStageCondition(BookModel):
    """Condition for an untuned shape to run in one stage.

    All parts that are given must hold.
    """

    token_above: int | None = None
    token_below: int | None = None
    inter_multiple: int | None = None
    inter_not_multiple: int | None = None


class OneStageRun(BookModel):
    """Alternatives of conditions for one stage, by quantization and dtype.

    Any of the conditions suffices; the first entry whose ``when`` fits counts.
    """

    when: dict[str, tuple[str, ...]]
    any: tuple[OneStageCondition, ...]


class BehaviourData(BookModel):
    """Everything by which AITER versions differ in their dispatch."""

    padding: tuple[Tier, ...]
    tier_retry: dict[int, int]
    act_type: Literal["exact", "exact_then_any", "any"]
    key_has_gfx: bool
    fp8_dtype: dict[str, str]
    ep_strips_topk: bool
    merge: Literal["by_us", "union"]
    dropped_tags: tuple[str, ...]
    features: frozenset[str]
    activation_rules: tuple[ActivationRule, ...]
    activation_bounds: dict[str, int]
    one_stage_unknown_gfx: Literal["KeyError"] | None
    one_stage_needs_no_doweight: bool
    one_stage_dict: dict[str, tuple[OneStageEntry, ...]]
    one_stage_run: tuple[OneStageRun, ...]
    block_m_per_1x128: tuple[Tier, ...]
    ksplit_quant_types: frozenset[str]
    stage_rules: tuple[str, ...]
    cktile_block_m: tuple[Tier, ...]
    cktile_fp8_block_m: int | None
    ck_weight_dtypes: frozenset[str]
    ck_by_weight_needs_no_name: bool
    asm_block_m: tuple[int, ...]
    ck_stage1: str
    grouped_activations: frozenset[str] = frozenset()
    grouped_gate_modes: frozenset[str] = frozenset()
    grouped_refuses: tuple[tuple[Literal["ep", "bias", "doweight_stage1"], ...], ...] = ()
    flat_archs: tuple[str, ...] = ("gfx942", "gfx950")
    flydsl_mx_activations: frozenset[str] = frozenset({"Swiglu"})
    opus_needs_shuffled: bool = False
    flydsl_fallback: str = ""
    """Tag of rows that answer for FlyDSL rows where FlyDSL is missing; without one FlyDSL rows stay."""
    fp8_block_rows_above: int = 0
    """Slots (padded tokens times top-k) up to which rows of fp8 block scales with Silu are not looked up."""
    cktile_stage2_names: bool = False
    cktile_gate_up_fp8: bool = False
    flydsl_mx_activation_dtypes: frozenset[str] = frozenset({"fp4x2", "fp8"})
    flydsl_mx_weight_dtypes: frozenset[str] = frozenset({"fp4x2", "fp8"})
    flydsl_mx_keeps_ksplit: bool = False
    flydsl_mx_any_k2: bool = False
    """Whether the heuristic takes stage 2's wide tile of K also where it does not divide ``inter_dim``."""


class TimelineEntry(BookModel):
    """What changed in one AITER version."""

    since: str
    source: str
    set: dict[str, Any]
    assumed: tuple[str, ...] = ()


class DispatchBook(BookModel):
    """Contents of ``book/aiter_dispatch.yaml``: dispatch behaviours by version."""

    newest: str
    newest_label: str
    oldest_supposed: str
    commits: dict[str, str]
    env_since: dict[str, str]
    timeline: tuple[TimelineEntry, ...]


Model = TypeVar("Model", bound=BookModel)


def validated(model: type[Model], document: Document) -> tuple[Model | None, list[Problem]]:
    """Validate a document; return its model, or the problems with positions."""
    try:
        return model.model_validate(document.value), []
    except ValidationError as error:
        found = field_problems(error)
        return None, [document.problem(path, f"{p.field}: {p.message}", p.valid) for path, p in found]


def _read(name: str, model: type[Model]) -> Model:
    document, problems = packaged_document(name)
    value, invalid = (None, []) if problems else validated(model, document)
    if value is None:
        raise BookError([*problems, *invalid])
    return value


@lru_cache(maxsize=1)
def dispatch_book() -> DispatchBook:
    """Return the version behaviours, read once.

    Raises:
        BookError: The file is wrong; with file, line and column.
    """
    return _read(DISPATCH, DispatchBook)
