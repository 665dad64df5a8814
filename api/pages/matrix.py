"""Page of models and GPUs, each cell linked to its decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers, Matrices
from preshuffle.api.pages.render import Renderer
from preshuffle.api.routes import matrix as matrix_route
from preshuffle.api.web import in_turn
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.loading import Book
from preshuffle.registry.matrix import OUTCOMES, Matrix, MatrixCell, MatrixGpu, MatrixRow

TP: Final = ("1", "2", "4", "8", "16")
"""Tensor-parallel sizes that the form offers."""


@dataclass(frozen=True, slots=True)
class BarrenGpu:
    """GPU architecture on which no model resolves, with counted reasons."""

    arch: str
    products: tuple[str, ...]
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """Matrix as the page shows it.

    GPUs on which nothing resolves are no columns.

    Attributes:
        gpus: each column with the number of models that resolve there.
        rows: each model with its cells, and how many columns of one architecture a cell stands for.
    """

    matrix: Matrix
    gpus: tuple[tuple[MatrixGpu, int], ...]
    rows: tuple[tuple[MatrixRow, tuple[tuple[MatrixCell, int], ...]], ...]
    barren: tuple[BarrenGpu, ...]


def install(app: FastAPI, answers: Answers, matrices: Matrices, render: Renderer) -> None:
    """Add the page."""

    @app.get("/matrix", include_in_schema=False)
    async def matrix(request: Request) -> Response:
        given = request.query_params.multi_items()
        values = {
            **dict.fromkeys(matrix_route.FIELDS, ""),
            **{name: text for name, text in given if name in matrix_route.FIELDS},
        }
        table: MatrixTable | None = None
        faults: tuple[FieldProblem, ...] = ()
        try:
            table = table_of(await in_turn(matrices.get, matrix_route.read_fields(given)), keep=bool(values["arch"]))
        except QueryError as error:
            faults = error.problems
        book = answers.registry.book
        return render(
            "matrix.html",
            422 if faults else 200,
            place="matrix",
            fields=values,
            faults=faults,
            table=table,
            help=matrix_route.FIELDS,
            outcomes=OUTCOMES,
            engines=tuple(_engines(book)),
            archs=tuple(_archs(book)),
            sizes=tuple(dict.fromkeys((*TP, values["tp"] or TP[0]))),
        )


def table_of(matrix: Matrix, keep: bool = False) -> MatrixTable:
    """Arrange a matrix for the page.

    Args:
        matrix: the part that is wanted.
        keep: show the columns in which nothing resolves, too.
    """
    columns = [[row.cells[index] for row in matrix.models] for index in range(len(matrix.gpus))]
    found = [sum(cell.outcome == "resolved" for cell in column) for column in columns]
    shown = [index for index, count in enumerate(found) if count or keep]
    set_aside = [index for index in range(len(columns)) if index not in shown]
    return MatrixTable(
        matrix=matrix,
        gpus=tuple((matrix.gpus[index], found[index]) for index in shown),
        rows=tuple((row, tuple(_merged([row.cells[index] for index in shown]))) for row in matrix.models),
        barren=tuple(_barren([(matrix.gpus[index], columns[index]) for index in set_aside if columns[index]])),
    )


def _merged(cells: Sequence[MatrixCell]) -> Iterator[tuple[MatrixCell, int]]:
    """Yield cells, equal neighbours of one architecture once, with their number."""
    for _, equal in groupby(cells, key=lambda cell: cell.model_copy(update={"cu_num": None, "query": ""})):
        first, *others = equal
        yield first, 1 + len(others)


def _barren(columns: Sequence[tuple[MatrixGpu, Sequence[MatrixCell]]]) -> Iterator[BarrenGpu]:
    """Yield GPUs without a recipe, merged by architecture and reasons."""
    for (arch, reasons), equal in groupby(columns, key=lambda column: (column[0].arch, _reasons(column[1]))):
        yield BarrenGpu(arch, tuple(product for gpu, _ in equal for product in gpu.products), reasons)


def _reasons(cells: Sequence[MatrixCell]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(cell.reason or "" for cell in cells).most_common())


def _engines(book: Book) -> Iterator[str]:
    for id, entry in book.engines.items():
        yield id
        yield from (f"{id}@{version}" for version in dict.fromkeys((entry.newest, entry.first)))


def _archs(book: Book) -> Iterator[str]:
    for id, entry in book.archs.items():
        yield id
        yield from entry.products
