"""AITER's merge of several table files, in memory only."""

from collections.abc import Callable, Hashable, Iterable

from preshuffle.registry.kernels.tables.rows import Hazard, Row

Key = tuple[Hashable, ...]


def full_key(row: Row) -> Key:
    """Return a row's key for duplicates: key columns, architecture, tag."""
    return (*row[1:15], row.tag)


def _shape_key(row: Row) -> Key:
    return row[3:15]


def decided_columns(row: Row) -> Key:
    """Return the columns of a row that decide the kernels."""
    return (row.kernel1, row.kernel2, row.block_m, row.ksplit, row.run_1stage)


def _fastest(rows: Iterable[Row], key: Callable[[Row], Key]) -> list[Row]:
    best: dict[Key, Row] = {}
    for row in rows:
        earlier = best.setdefault(key(row), row)
        if row.us < earlier.us:
            best[key(row)] = row
    return list(best.values())


def merge_union(rows: list[Row]) -> list[Row]:
    """Merge as AITER 0.1.10 and later: the fastest row per key.

    Rows keep their file order. AITER itself writes the result back into the CSV files of its package and raises
    ``RuntimeError`` once (aiter/jit/core.py); from the second start on it reads what this returns.
    """
    return _fastest(rows, full_key)


def merge_by_us(rows: list[Row]) -> list[Row]:
    """Merge as the 0.1.7 wheel: the fastest row per shape.

    Rows are sorted by ``us``; architectures are not distinguished.

    A single file is not merged at all, so its rows keep their order and their architectures.
    """
    files = {row.source.rpartition(":")[0] for row in rows}
    if len(files) < 2:
        return _fastest(rows, full_key)
    return _fastest(sorted(rows, key=lambda row: row.us), _shape_key)


MERGES = {"union": merge_union, "by_us": merge_by_us}


def contradictions(rows: Iterable[Row]) -> list[Hazard]:
    """Return a hazard for each row that contradicts an earlier one."""
    first: dict[Key, Row] = {}
    found = []
    for row in rows:
        earlier = first.setdefault(full_key(row), row)
        if earlier is not row and decided_columns(earlier) != decided_columns(row):
            winner = min(earlier, row, key=lambda r: r.us)
            text = (
                f"has the key of {earlier.source} and names another kernel; AITER rewrites its files, keeps the lower "
                f"us ({winner.source}) and raises RuntimeError once"
            )
            found.append(Hazard("ambiguous_key", text, row.source))
    return found
