"""The kernel part of the book: how AITER versions behave, and which bytes kernel families read."""

from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preshuffle.registry.errors import BookError, Problem
from preshuffle.registry.located import Document, field_problems, parse_yaml

DISPATCH: Final = "aiter_dispatch.yaml"
FAMILIES: Final = "kernel_families.yaml"


class BookModel(BaseModel):
    """Base of everything read from the book: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Tier(BookModel):
    """A step of a ladder over token counts: counts below ``below`` (None: all others) become ``to``."""

    below: int | None = None
    to: int | Literal["pow2"]


class ActivationRule(BookModel):
    """Chooses the activation dtype.

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
    """All given parts must hold for an untuned shape to run in one stage."""

    token_above: int | None = None
    token_below: int | None = None
    inter_multiple: int | None = None
    inter_not_multiple: int | None = None


class OneStageRun(BookModel):
    """Which conditions (any of them) let an untuned shape run in one stage; the first ``when`` that fits counts."""

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
    flydsl_mx_activations: frozenset[str] = frozenset({"Swiglu"})
    opus_needs_shuffled: bool = False


class TimelineEntry(BookModel):
    """What changed in one AITER version."""

    since: str
    source: str
    set: dict[str, Any]
    assumed: tuple[str, ...] = ()


class DispatchBook(BookModel):
    """``book/aiter_dispatch.yaml``."""

    newest: str
    newest_label: str
    commits: dict[str, str]
    env_since: dict[str, str]
    timeline: tuple[TimelineEntry, ...]


class Variant(BookModel):
    """What a family reads under a condition.

    Attributes:
        when: Allowed values by fact of the call or group of the kernel name (``name.<group>``; ``""``: absent).
        reads: Layout id by role.
        note: What an answer with this variant must say.
    """

    when: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    reads: dict[str, str]
    note: str | None = None


class Family(BookModel):
    """A family of kernels that share a name grammar and a contract on bytes.

    Attributes:
        id: Its id.
        stage: ``1``, ``2`` or ``1-stage``.
        funcs: AITER's functions that launch it.
        grammar: Regular expression of the whole kernel name; named groups are what the name encodes.
        tables: Whether tuned tables name its kernels.
        archs: Architectures it exists for.
        since: AITER version that has it first; empty where every version known here has it.
        encodes: What each group means.
        row_order: Row order of w13 that it expects, in words.
        activation: How it takes activations, in words.
        ignores: Call arguments that it drops without a word.
        variants: What it reads; the first that fits counts.
        evidence: Where this is written.
    """

    id: str
    stage: Literal["1", "2", "1-stage"]
    funcs: tuple[str, ...]
    grammar: str
    tables: bool = True
    archs: tuple[str, ...] = ()
    since: str = ""
    encodes: dict[str, str] = Field(default_factory=dict)
    row_order: str = ""
    activation: str = ""
    ignores: tuple[str, ...] = ()
    variants: tuple[Variant, ...]
    evidence: tuple[str, ...] = ()


class FamilyBook(BookModel):
    """``book/kernel_families.yaml``."""

    families: tuple[Family, ...]
    tags: dict[str, str] = Field(default_factory=dict)
    packings: dict[str, str] = Field(default_factory=dict)


Model = TypeVar("Model", bound=BookModel)


def packaged_document(name: str) -> tuple[Document, list[Problem]]:
    """Return one of the two files with the place of every value, and what is wrong with it as YAML."""
    text = files("preshuffle.registry").joinpath("book", name).read_text(encoding="utf-8")
    return parse_yaml(text, f"book/{name}")


def validated(model: type[Model], document: Document) -> tuple[Model | None, list[Problem]]:
    """Return a document as a model, or what is wrong with it, each with its place."""
    try:
        return model.model_validate(document.value), []
    except ValidationError as error:
        found = field_problems(error)
        return None, [document.problem(path, f"{p.field}: {p.message}", p.valid) for path, p in found]


def _read(name: str, model: type[Model]) -> Model:
    document, problems = packaged_document(name)
    value, wrong = (None, []) if problems else validated(model, document)
    if value is None:
        raise BookError([*problems, *wrong])
    return value


@lru_cache(maxsize=1)
def dispatch_book() -> DispatchBook:
    """Return the version behaviours, read once.

    Raises:
        BookError: The file is wrong; with file, line and column.
    """
    return _read(DISPATCH, DispatchBook)


@lru_cache(maxsize=1)
def family_book() -> FamilyBook:
    """Return the kernel families, read once.

    Raises:
        BookError: The file is wrong; with file, line and column.
    """
    return _read(FAMILIES, FamilyBook)
