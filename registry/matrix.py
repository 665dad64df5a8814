"""Matrix of models and GPUs: resolved, tuned, known bad or refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal
from urllib.parse import urlencode

from pydantic import Field

from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, NoRecipeError, PreshuffleError, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.entries import ArchEntry, ModelEntry
from preshuffle.registry.layer import unknown_engine
from preshuffle.registry.resolve import observation_of
from preshuffle.registry.values.finding import FindingCode
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Verdict

Outcome = Literal["resolved", "refused", "unanswered", "incomplete"]
Tuned = Literal["all", "some", "none"]
OUTCOMES: Final[dict[Outcome, str]] = {
    "resolved": "a recipe answers",
    "refused": "nothing is known to work: a rule, a contract or the GPU rules it out",
    "unanswered": "no rule answers, and none says that nothing works",
    "incomplete": "the model's entry leaves out what a query must say",
}
"""What each outcome of a cell means."""
_FIRST_WORDS: Final = 100
_CLAUSE_END: Final = re.compile(r"\n|; |(?<=[\w')]{4}): |(?<=[\w')]{2})\. ")
"""Where the first clause of a reason ends."""
_LACKS: Final = "what matches lacks what its recipe requires: "


class MatrixGpu(Frozen):
    """Column: GPUs with the same architecture and compute units.

    Attributes:
        cu_num: compute units, where the architecture has products with other numbers; null where all are equal.
    """

    arch: str
    cu_num: int | None
    products: tuple[str, ...]


class MatrixCell(Frozen):
    """One model on one GPU."""

    arch: str
    cu_num: int | None
    query: str = Field(description="query string for ``/resolve`` and ``/v1/resolve``: the decision of this cell")
    outcome: Outcome
    recipe: str | None = None
    verdict: Verdict | None = Field(default=None, description="of a deployment that follows the decision to the letter")
    findings: tuple[FindingCode, ...] = Field(default=(), description="codes of the decision, errors first")
    known_bad: bool = Field(
        default=False, description="whether one of them is a known problem of kernel, shape or AITER"
    )
    tuned: Tuned | None = Field(
        default=None,
        description="whether AITER has tuned rows for all, some or none of the query's token counts; null where no "
        "tables are loaded, or AITER's dispatch is not asked",
    )
    untuned_tokens: tuple[int, ...] = Field(default=(), description="token counts without a tuned row")
    reason: str | None = Field(
        default=None, description="first words of why nothing resolves; the query's answer has all"
    )


class MatrixRow(Frozen):
    """One model on every GPU, in the order of ``gpus``."""

    model: str
    weight_dtype: str | None
    cells: tuple[MatrixCell, ...]


class Matrix(Frozen):
    """Every model of the book on every GPU of the book."""

    registry_digest: str
    kernel_tables: str | None = Field(description="digest of the kernel tables; null: none are loaded")
    engine: str | None
    aiter: str | None
    tp: int
    gpus: tuple[MatrixGpu, ...]
    models: tuple[MatrixRow, ...]


def matrix_query(registry: Registry, fields: dict[str, Any]) -> Query:
    """Return a query with the engine, AITER and ranks of a matrix.

    Its model and GPU are placeholders.

    Args:
        registry: whose engines are known.
        fields: ``engine``, ``aiter``, ``tp`` as in a query; what is empty is left out.

    Raises:
        QueryError: a value is wrong, or the engine is unknown.
    """
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    query = Query.parse({"model": "any", "arch": "gfx950", **given})
    unknown = unknown_engine(registry.book, query.engine)
    if unknown:
        raise QueryError([FieldProblem("engine", unknown)])
    return query


def matrix_of(registry: Registry, query: Query) -> Matrix:
    """Resolve every model on every GPU.

    Args:
        registry: whose book and kernel tables answer.
        query: its engine, AITER and tensor-parallel size are those of every cell.
    """
    gpus = matrix_gpus(registry)
    rows = tuple(_row(registry, model, query, gpus) for model in registry.book.models.values())
    return Matrix(
        registry_digest=registry.digest,
        kernel_tables=registry.tables.digest if registry.tables else None,
        engine=str(query.engine) if query.engine else None,
        aiter=query.aiter,
        tp=query.tp,
        gpus=gpus,
        models=rows,
    )


def matrix_gpus(registry: Registry) -> tuple[MatrixGpu, ...]:
    """Return the columns of every matrix, in order."""
    return tuple(_gpus(registry.book.archs.values()))


def row_of(registry: Registry, model: str, query: Query) -> MatrixRow:
    """Resolve one model on every GPU.

    Args:
        registry: whose book and kernel tables answer.
        model: the id of its entry in the book.
        query: as of ``matrix_of``.
    """
    return _row(registry, registry.book.models[model], query, matrix_gpus(registry))


def narrowed(matrix: Matrix, registry: Registry, model: str = "", arch: str = "") -> Matrix:
    """Return the part of a matrix with some models and GPUs.

    Args:
        matrix: the whole one.
        registry: whose names of GPUs count.
        model: what the ids of the models have in them; empty for all.
        arch: a GPU by any of its names: its column alone where the name has one, else all of its architecture.

    Raises:
        QueryError: the GPU is unknown.
    """
    rows = tuple(row for row in matrix.models if model.lower() in row.model.lower())
    if not arch:
        return matrix.model_copy(update={"models": rows})
    names = registry.book.arch_names
    named = names.find(arch)
    if named is None:
        raise QueryError([FieldProblem("arch", names.unknown(arch))])
    wanted = [
        index
        for index, gpu in enumerate(matrix.gpus)
        if gpu.arch == named.entry.id and (named.cu_num is None or gpu.cu_num in (None, named.cu_num))
    ]
    return matrix.model_copy(
        update={
            "gpus": tuple(matrix.gpus[index] for index in wanted),
            "models": tuple(
                row.model_copy(update={"cells": tuple(row.cells[index] for index in wanted)}) for row in rows
            ),
        }
    )


def _row(registry: Registry, model: ModelEntry, query: Query, gpus: tuple[MatrixGpu, ...]) -> MatrixRow:
    given: dict[str, Any] = {"engine": str(query.engine) if query.engine else None, "aiter": query.aiter}
    if query.tp > 1:
        given["tp"] = query.tp
    given = {name: value for name, value in given.items() if value is not None}
    cells = tuple(_cell(registry, {"model": model.id, **_of_gpu(gpu), **given}, gpu) for gpu in gpus)
    return MatrixRow(model=model.id, weight_dtype=model.weight_dtype, cells=cells)


def _gpus(archs: Iterable[ArchEntry]) -> Iterator[MatrixGpu]:
    """Yield the columns of a matrix.

    Products whose kernels may differ by their compute units are apart.
    """
    for arch in archs:
        numbers = dict.fromkeys(arch.cu_num.values())
        if arch.no_fused_moe or arch.default_cu_num or not numbers:
            yield MatrixGpu(arch=arch.id, cu_num=None, products=arch.products)
            continue
        for number in numbers:
            products = tuple(product for product in arch.products if arch.cu_num.get(product) == number)
            yield MatrixGpu(arch=arch.id, cu_num=number, products=products)


def _of_gpu(gpu: MatrixGpu) -> dict[str, Any]:
    return {"arch": gpu.arch} if gpu.cu_num is None else {"arch": gpu.arch, "cu_num": gpu.cu_num}


def _cell(registry: Registry, fields: dict[str, Any], gpu: MatrixGpu) -> MatrixCell:
    return MatrixCell(
        arch=gpu.arch, cu_num=gpu.cu_num, query=urlencode(fields), **_answer(registry, Query.parse(fields))
    )


def _answer(registry: Registry, query: Query) -> dict[str, Any]:
    try:
        decision = registry.resolve(query, nearest=False)
    except NoRecipeError as error:
        refused = error.rule is not None or bool(error.evidence)
        outcome: Outcome = "refused" if refused else "incomplete" if error.missing else "unanswered"
        return {"outcome": outcome, "reason": first_words(error.why.removeprefix(_LACKS))}
    except PreshuffleError as error:
        return {"outcome": "refused", "reason": first_words(str(error))}
    codes = sorted(decision.findings, key=lambda finding: finding.severity != "error")
    tuned = [bucket.tuned for bucket in decision.kernels] if registry.tables else []
    known = bool(tuned) and None not in tuned
    return {
        "outcome": "resolved",
        "recipe": decision.recipe,
        "verdict": registry.check(observation_of(decision, query)).verdict,
        "findings": tuple(dict.fromkeys(finding.code for finding in codes)),
        "known_bad": any(finding.code == "known_bad" for finding in codes),
        "tuned": ("all" if all(tuned) else "some" if any(tuned) else "none") if known else None,
        "untuned_tokens": tuple(bucket.tokens for bucket in decision.kernels if not bucket.tuned) if known else (),
    }


def first_words(text: str) -> str:
    """Return the first clause of a reason, of at most 100 characters.

    Example:
        >>> first_words("no fused MoE of AITER for gfx90a; engines run Triton there, on plain bytes")
        'no fused MoE of AITER for gfx90a'
    """
    clause = _CLAUSE_END.split(text, maxsplit=1)[0]
    if len(clause) <= _FIRST_WORDS:
        return clause
    return clause[: _FIRST_WORDS - 1].rsplit(" ", 1)[0] + "…"
