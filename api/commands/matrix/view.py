"""Terminal view of a matrix of models and GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from preshuffle.api.commands.screens.screen import Screen, short_digest
from preshuffle.api.commands.screens.table import Cell, Column, Row
from preshuffle.registry.matrix import Matrix, MatrixCell, MatrixGpu

_STYLES = {"ok": "good", "degraded": "warn", "unknown": "dim", "unsupported": "bad", "mismatch": "bad"}
_OTHERS = {"refused": ("✕ refused", "bad"), "unanswered": ("no recipe", "dim"), "incomplete": ("incomplete", "dim")}
_TUNED = {"all": "tuned", "some": "partly tuned", "none": "not tuned"}


def show_matrix(screen: Screen, matrix: Matrix, *, every_gpu: bool = False) -> None:
    """Show a matrix.

    GPUs on which nothing resolves are named below, unless every one is wanted in the table.
    """
    parts = [f"TP {matrix.tp}", matrix.engine or "no engine"]
    parts += [f"AITER {matrix.aiter}"] if matrix.aiter else []
    tables = f"tables {short_digest(matrix.kernel_tables)}" if matrix.kernel_tables else "no tables: tuned is unknown"
    screen.line(f"{screen.paint(f'{len(matrix.models)} models', 'bold')}  {', '.join(parts)}  {tables}")
    reasons: dict[str, int] = {}
    columns = [_column(matrix, index) for index in range(len(matrix.gpus))]
    shown = [index for index, column in enumerate(columns) if every_gpu or _resolves(column)]
    merged = [list(equal) for _, equal in groupby(shown, key=lambda index: _sight(matrix.gpus[index], columns[index]))]
    if matrix.models and merged:
        screen.line()
        heads = [Column(_name([matrix.gpus[index] for index in group]), wraps=True) for group in merged]
        rows: list[Row] = [
            (Cell(row.model, "name"), *(_cell(columns[group[0]][place], reasons) for group in merged))
            for place, row in enumerate(matrix.models)
        ]
        screen.table([Column("model", wraps=True), *heads], rows)
    if reasons:
        screen.heading("why not")
        notes: list[Row] = [(f"[{number}]", reason) for reason, number in reasons.items()]
        screen.table([Column(), Column(wraps=True)], notes)
    barren = [index for index in range(len(columns)) if index not in shown and columns[index]]
    if barren:
        screen.heading("GPUs without a recipe for these models")
        alike: dict[str, dict[str, None]] = {}
        for index in barren:
            alike.setdefault(_most(columns[index]), {})[matrix.gpus[index].arch] = None
        lines: list[Row] = [(Cell(", ".join(archs)), why) for why, archs in alike.items()]
        screen.table([Column(wraps=True), Column(wraps=True)], lines)


def _column(matrix: Matrix, index: int) -> list[MatrixCell]:
    return [row.cells[index] for row in matrix.models]


def _resolves(column: Sequence[MatrixCell]) -> bool:
    return any(cell.outcome == "resolved" for cell in column)


def _sight(gpu: MatrixGpu, column: Sequence[MatrixCell]) -> tuple[object, ...]:
    """Return what a column shows; equal ones of one architecture become one."""
    return gpu.arch, tuple(cell.model_copy(update={"cu_num": None, "query": ""}) for cell in column)


def _name(gpus: Sequence[MatrixGpu]) -> str:
    return f"{gpus[0].arch}: {', '.join(product for gpu in gpus for product in gpu.products)}"


def _cell(cell: MatrixCell, reasons: dict[str, int]) -> Cell:
    if cell.verdict is None:
        text, style = _OTHERS[cell.outcome]
        return Cell(f"{text} [{reasons.setdefault(cell.reason or '', len(reasons) + 1)}]", style)
    lines = [f"{cell.verdict} {cell.recipe}"]
    lines += [f"known bad: {', '.join(cell.findings)}" if cell.known_bad else ", ".join(cell.findings)]
    lines += [_TUNED[cell.tuned]] if cell.tuned else []
    return Cell("\n".join(filter(None, lines)), _STYLES[cell.verdict])


def _most(column: Sequence[MatrixCell]) -> str:
    counted = Counter(cell.reason or "" for cell in column)
    return "\n".join(f"{reason} ({count})" for reason, count in counted.most_common())
