"""The book's models on its GPUs, one page each: recipe and verdict by engine, and the launch line to copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import parse_qsl

from page_markup import WIDE, code, fenced, page, table, text

from preshuffle.registry import Query, Registry
from preshuffle.registry.entries import ModelEntry
from preshuffle.registry.launch import launch_of
from preshuffle.registry.matrix import MatrixCell, MatrixGpu, matrix_gpus, matrix_query, row_of

INDEX: Final = "book/models/index.md"
_SIZES: Final = (8, 4, 2, 1)
"""Tensor-parallel sizes, the usual one first."""
_KERNELS: Final = "AITER's kernels"
"""The column of queries that name no engine."""
_FACTS: Final = (
    "weight_dtype", "quant_type", "activation", "activation_dtype", "gate_up_order", "hidden_size", "intermediate_size",
    "num_experts", "top_k", "shared_experts", "bias", "producer",
)  # fmt: skip
_WORDS: Final = {"refused": "refused", "unanswered": "no recipe", "incomplete": "incomplete"}


@dataclass(frozen=True, slots=True)
class ModelMatrix:
    """One model on every GPU, by engine.

    Attributes:
        tp: tensor-parallel size of all cells.
        columns: cells in the order of ``gpus``, by the column's title.
    """

    model: ModelEntry
    tp: int
    gpus: tuple[MatrixGpu, ...]
    columns: Mapping[str, tuple[MatrixCell, ...]]

    @property
    def resolved(self) -> int:
        """How many cells have a recipe."""
        return sum(cell.outcome == "resolved" for cells in self.columns.values() for cell in cells)

    def gpu_rows(self) -> Iterator[tuple[MatrixGpu, tuple[MatrixCell, ...]]]:
        """Yield each GPU with its cells."""
        yield from zip(self.gpus, zip(*self.columns.values(), strict=True), strict=True)


def model_pages(registry: Registry, pattern: str = "*") -> dict[str, str]:
    """Return one page per model whose id fits a pattern, after one of all of them."""
    models = [model for model in registry.book.models.values() if fnmatchcase(model.id, pattern)]
    found = [matrix_of_model(registry, model) for model in models]
    rows = [
        (f"[{code(matrix.model.id)}]({matrix.model.id}.md)", code(matrix.model.weight_dtype or ""), _where(matrix))
        for matrix in found
    ]
    index = page(
        "# Models and GPUs",
        "Each model's page has its recipe on every GPU, for AITER's kernels and for each engine's newest release that "
        "the book knows, and the command line to copy. `preshuffle matrix` and `GET /v1/matrix` say the same for other "
        "engines, AITERs and tensor-parallel sizes.",
        table(("Model", "Weights", "A recipe on"), rows),
    )
    return {INDEX: index, **{f"book/models/{matrix.model.id}.md": _page(registry, matrix) for matrix in found}}


def matrix_of_model(registry: Registry, model: ModelEntry) -> ModelMatrix:
    """Return a model's matrix at the largest tensor-parallel size at which as many cells resolve as on one GPU."""
    alone = _matrix(registry, model, _SIZES[-1])
    larger = (_matrix(registry, model, tp) for tp in _SIZES[:-1])
    return next((matrix for matrix in larger if matrix.resolved >= alone.resolved), alone)


def _matrix(registry: Registry, model: ModelEntry, tp: int) -> ModelMatrix:
    engines = {_KERNELS: "", **{f"{entry.id} {entry.newest}": entry.id for entry in registry.book.engines.values()}}
    columns = {
        title: row_of(registry, model.id, matrix_query(registry, {"engine": engine, "tp": tp})).cells
        for title, engine in engines.items()
    }
    return ModelMatrix(model, tp, matrix_gpus(registry), columns)


def _where(matrix: ModelMatrix) -> str:
    archs = [gpu.arch for gpu, cells in matrix.gpu_rows() if any(cell.outcome == "resolved" for cell in cells)]
    return ", ".join(map(code, dict.fromkeys(archs))) or "none"


def _page(registry: Registry, matrix: ModelMatrix) -> str:
    model = matrix.model
    facts = [(code(name), code(value)) for name in _FACTS if (value := getattr(model, name)) is not None]
    aliases = f"Also {', '.join(map(code, model.aliases))}." if model.aliases else ""
    works = [(gpu, cells) for gpu, cells in matrix.gpu_rows() if any(cell.outcome == "resolved" for cell in cells)]
    fails = [(gpu, cells) for gpu, cells in matrix.gpu_rows() if (gpu, cells) not in works]
    rows = _merged((gpu, tuple(map(_cell, cells))) for gpu, cells in works)
    refusals = _merged((gpu, (text(cells[0].reason or ""),)) for gpu, cells in fails)
    return page(
        WIDE,
        f"# {model.id}",
        aliases,
        "## On each GPU",
        f"Tensor-parallel size {matrix.tp}, each engine with its defaults and what the recipe needs." if rows else "",
        table(("GPU", *matrix.columns), rows),
        *(_launches(registry, matrix)),
        "## Where no recipe answers" if refusals else "",
        table(("GPU", "Why, in AITER's kernels"), refusals),
        "## What the book knows of it",
        table(("Field of a query", "Value"), facts),
        text(model.note),
    )


def _merged(rows: Iterable[tuple[MatrixGpu, tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Return table rows, those of one architecture whose cells say the same as one."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for gpu, cells in rows:
        found.setdefault((gpu.arch, cells), []).extend(gpu.products)
    return [(f"{code(arch)} {', '.join(products)}", *cells) for (arch, cells), products in found.items()]


def _cell(cell: MatrixCell) -> str:
    if cell.outcome != "resolved":
        return f"{_WORDS[cell.outcome]}: {text(cell.reason or '')}"
    findings = f" ({', '.join(map(code, cell.findings))})" if cell.findings else ""
    return f"{code(cell.recipe)} {cell.verdict}{findings}"


def _launches(registry: Registry, matrix: ModelMatrix) -> Iterator[str]:
    """Yield the command lines, those of several GPUs once."""
    found: dict[tuple[str, str, tuple[str, ...]], list[MatrixGpu]] = {}
    for title, cells in matrix.columns.items():
        for gpu, cell in zip(matrix.gpus, cells, strict=True):
            if title == _KERNELS or cell.outcome != "resolved":
                continue
            query = Query.parse(_fields(cell))
            launch = launch_of(query, registry.resolve(query), registry.book)
            line = launch.line or f"# {launch.why_not}"
            found.setdefault((title, line, launch.notes), []).append(gpu)
    if found:
        yield "## Launch lines"
    for (title, line, notes), gpus in found.items():
        products = ", ".join(product for gpu in gpus for product in gpu.products)
        yield f"**{title}** on {products}"
        yield fenced(line, "sh")
        yield "\n".join(f"* {text(note)}" for note in notes)


def _fields(cell: MatrixCell) -> dict[str, Any]:
    return dict(parse_qsl(cell.query))
