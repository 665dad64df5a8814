"""Parser of one tuned CSV file of AITER.

It is strict where a cell decides a kernel, and lenient where AITER is.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from preshuffle.registry.kernels.errors import TableError
from preshuffle.registry.kernels.tables.rows import (
    GFX_OF_CU_NUM,
    GROUPED_KEYS,
    KEY_COLUMNS,
    OPTIONAL_COLUMNS,
    VALUE_COLUMNS,
    GroupedRow,
    Hazard,
    Row,
)

MAX_BYTES = 256 * 1024 * 1024
MAX_COLUMNS = 256
MAX_NAME = 256
MAX_ROW_BYTES = 64 * 1024
MAX_ROW_LINES = 16
_NO_NAME = frozenset({"", "nan", "null", "none"})
_NO_GFX = frozenset({"", "0", "nan", "none"})
_TRUTH = {"true": 1, "false": 0}


@dataclass(slots=True)
class TableFile:
    """One CSV file, read.

    Attributes:
        name: How findings call it, e.g. ``model_configs/dsv3_fp4_tuned_fmoe.csv``.
        rows: Its rows, if it is a fused-MoE table.
        grouped: Its rows, if it is the gfx1250 grouped table.
        others: Number of rows of a heterogeneous-expert table (``tuned_fhmoe.csv``), which no call here can reach.
        hazards: Hazards of the file itself, such as unknown columns.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    grouped: list[GroupedRow] = field(default_factory=list)
    others: int = 0
    hazards: list[Hazard] = field(default_factory=list)


def read_bytes(path: Path, name: str) -> bytes:
    """Read a table file, refusing what cannot be one.

    Raises:
        TableError: The file is missing, unreadable, not a file or larger than any table.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise TableError(name, "is not a file")
        if size > MAX_BYTES:
            raise TableError(name, f"has {size} bytes; a kernel table has at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as exc:
        raise TableError(name, f"cannot be read: {exc.strerror}") from exc


def parse_table(name: str, data: bytes) -> TableFile:
    """Parse the bytes of one CSV file.

    Args:
        name: How errors and findings call the file.
        data: Its content, UTF-8 with or without a byte order mark.

    Raises:
        TableError: With file, line and column: an encoding, a header or a row that cannot be used.
    """
    if len(data) > MAX_BYTES:
        raise TableError(name, f"has {len(data)} bytes; a kernel table has at most {MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise TableError(f"{name}:{line}", f"is not UTF-8 (byte 0x{data[exc.start]:02x})") from exc
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TableError(f"{name}:{line}", "holds a null byte; a kernel table is text")
    lines = _lines(name, text)
    header = [cell.strip() for cell in next(lines, (0, []))[1]]
    _check_header(name, header)
    table = TableFile(name)
    if "shared_expert_id" in header:
        table.others = sum(1 for _ in lines)
    elif "tile_m" in header:
        table.grouped.extend(_grouped_rows(name, header, lines))
    else:
        _unknown_columns(table, header)
        table.rows.extend(_rows(name, header, lines))
    return table


class _LimitedLines:
    """Lines of a CSV text, with limits on line and row length.

    The limits bound the memory of a row, which is a multiple of its size.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = io.StringIO(text, newline="")
        self.number = 0
        self.of_row = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            self.number += 1
            self.of_row += 1
            if len(line) > MAX_ROW_BYTES:
                raise TableError(f"{self.name}:{self.number}", f"is not CSV: a line of more than {MAX_ROW_BYTES} bytes")
            if self.of_row > MAX_ROW_LINES:
                raise TableError(f"{self.name}:{self.number}", f"is not CSV: a row of more than {MAX_ROW_LINES} lines")
            yield line


def _lines(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    limited = _LimitedLines(name, text)
    reader = csv.reader(limited)
    try:
        for cells in reader:
            limited.of_row = 0
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as exc:
        raise TableError(f"{name}:{reader.line_num}", f"is not CSV: {exc}") from exc


def _check_header(name: str, header: list[str]) -> None:
    if not header:
        raise TableError(f"{name}:1", "is empty; a kernel table starts with a header line")
    if len(header) > MAX_COLUMNS:
        raise TableError(f"{name}:1", f"has {len(header)} columns; a kernel table has at most {MAX_COLUMNS}")
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise TableError(f"{name}:1", f"names columns twice: {', '.join(twice)}")
    needed = (*KEY_COLUMNS, *VALUE_COLUMNS) if "tile_m" not in header else ("tile_m", "token", "model_dim")
    missing = [column for column in needed if column not in header]
    if missing:
        raise TableError(f"{name}:1", f"lacks the columns {', '.join(missing)}; is it a tuned table of AITER?")


def _unknown_columns(table: TableFile, header: list[str]) -> None:
    unknown = [c for c in header if c not in OPTIONAL_COLUMNS and c not in KEY_COLUMNS and c not in VALUE_COLUMNS]
    if unknown:
        text = f"columns that no AITER reads: {', '.join(unknown[:8])}; they are ignored"
        table.hazards.append(Hazard("stale_row", text, f"{table.name}:1"))


def _integer(source: str, column: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    lowered = text.strip().lower()
    if lowered in _TRUTH:
        return _TRUTH[lowered]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value):
        raise TableError(source, f"column {column}: {text[:40]!r} is not a whole number")
    return int(value)


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.inf
    return math.inf if math.isnan(value) else value


def _kernel(source: str, column: str, text: str) -> str:
    stripped = text.strip()
    if len(stripped) > MAX_NAME:
        raise TableError(source, f"column {column}: a name of {len(stripped)} characters; valid: {MAX_NAME} at most")
    return "" if stripped.lower() in _NO_NAME else stripped


class _Reader:
    """Interning cell parser: equal cells become one object.

    That saves memory, and keys compare by identity.
    """

    def __init__(self) -> None:
        self._integer: dict[str, int] = {}
        self._words: dict[str, str] = {}
        self._kernels: dict[str, str] = {}

    def integer(self, source: str, column: str, text: str) -> int:
        value = self._integer.get(text)
        if value is None:
            value = self._integer[text] = _integer(source, column, text)
        return value

    def word(self, text: str) -> str:
        value = self._words.get(text)
        if value is None:
            value = self._words[text] = intern(text.strip())
        return value

    def kernel(self, source: str, column: str, text: str) -> str:
        value = self._kernels.get(text)
        if value is None:
            value = self._kernels[text] = intern(_kernel(source, column, text))
        return value


def _cells(header: list[str], wanted: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(header.index(column) for column in wanted)


def _optional(header: list[str], column: str) -> Callable[[list[str]], str]:
    if column not in header:
        return lambda cells: ""
    at = header.index(column)
    return lambda cells: cells[at].strip() if at < len(cells) else ""


def _rows(name: str, header: list[str], lines: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    required = (*KEY_COLUMNS, *VALUE_COLUMNS)
    at = _cells(header, required)
    last = max(at)
    read = _Reader()
    gfx_of, one_of, flat_of, us_of, tag_of = (
        _optional(header, column) for column in ("gfx", "run_1stage", "flat", "us", "_tag")
    )
    for line, cells in lines:
        source = f"{name}:{line}"
        if len(cells) <= last:
            raise TableError(source, f"has {len(cells)} of {len(header)} columns and ends before {header[last]}")
        if len(cells) > len(header) and any(cells[len(header) :]):
            raise TableError(source, f"has {len(cells)} columns where the header names {len(header)}")
        needed = [cells[i] for i in at]
        yield _row(read, source, needed, gfx_of(cells), one_of(cells), flat_of(cells), us_of(cells), tag_of(cells))


def _row(read: _Reader, source: str, cells: list[str], gfx: str, one: str, flat: str, us: str, tag: str) -> Row:
    cu, token, model, inter, expert, topk, act, dtype, a, w, quant, g1u1, doweight, block, ksplit, k1, k2 = cells
    integer, word = read.integer, read.word
    cu_num = integer(source, "cu_num", cu)
    given = gfx.lower() not in _NO_GFX
    return Row(
        source,
        word(gfx) if given else GFX_OF_CU_NUM.get(cu_num, ""),
        cu_num,
        integer(source, "token", token),
        integer(source, "model_dim", model),
        integer(source, "inter_dim", inter),
        integer(source, "expert", expert),
        integer(source, "topk", topk),
        word(act),
        word(dtype),
        word(a),
        word(w),
        word(quant),
        integer(source, "use_g1u1", g1u1),
        integer(source, "doweight_stage1", doweight),
        integer(source, "block_m", block),
        integer(source, "ksplit", ksplit),
        read.kernel(source, "kernelName1", k1),
        read.kernel(source, "kernelName2", k2),
        bool(integer(source, "run_1stage", one)) if one else False,
        flat not in ("", "0") and math.isfinite(_number(flat)) and int(_number(flat)) != 0,
        _number(us),
        "" if tag.lower() == "nan" else word(tag),
        given,
    )


def _grouped_rows(name: str, header: list[str], lines: Iterator[tuple[int, list[str]]]) -> Iterator[GroupedRow]:
    keys = [(i, column) for i, column in enumerate(header) if column in GROUPED_KEYS]
    tile_of, k1_of, k2_of, us_of = (_optional(header, c) for c in ("tile_m", "kernelName1", "kernelName2", "us"))
    for line, cells in lines:
        source = f"{name}:{line}"
        if len(cells) <= header.index("tile_m"):
            raise TableError(source, f"has {len(cells)} of {len(header)} columns and ends before tile_m")
        key = tuple((column, cells[i].strip()) for i, column in keys if i < len(cells) and cells[i].strip())
        us = _number(us_of(cells) or "0")
        tile_m = _integer(source, "tile_m", tile_of(cells) or "64")
        names = (_kernel(source, "kernelName1", k1_of(cells)), _kernel(source, "kernelName2", k2_of(cells)))
        yield GroupedRow(source, key, tile_m, *names, us)
