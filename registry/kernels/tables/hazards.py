"""Hazards of whole tables: unknown kernels and ambiguous keys."""

import re
from collections import defaultdict

from preshuffle.registry.kernels.aiter_versions.behaviour import behaviour_of
from preshuffle.registry.kernels.families.families import Families
from preshuffle.registry.kernels.tables.merge import contradictions, decided_columns
from preshuffle.registry.kernels.tables.rows import SHARED_CU_NUM, GroupedRow, Hazard, Row

_GFX_NAME = re.compile(r"gfx[0-9a-f]+")


def _file(row: Row) -> str:
    return row.source.rpartition(":")[0]


def _unknown_kernels(rows: list[Row] | list[GroupedRow], families: Families) -> list[Hazard]:
    found = []
    for row in rows:
        names = [name for name in (row.kernel1, row.kernel2) if name]
        unknown = [repr(name[:120]) for name in names if not families.is_known_name(name)]
        if unknown:
            found.append(Hazard("stale_row", f"names kernels of no known family: {', '.join(unknown)}", row.source))
        elif not names:
            found.append(Hazard("stale_row", "names no kernel at all", row.source))
    return found


def _shared_archs(rows: list[Row]) -> list[Hazard]:
    by_file: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if not row.gfx_given and (row.cu_num in SHARED_CU_NUM or not row.gfx):
            by_file[_file(row), row.cu_num].append(row)
    found = []
    for (_, cu_num), group in by_file.items():
        archs = " and ".join(SHARED_CU_NUM.get(cu_num, ("any architecture",)))
        meaning = f"AITER from 0.1.16 on takes {group[0].gfx}" if group[0].gfx else "AITER takes the GPU it runs on"
        text = f"{len(group)} rows name no gfx and cu_num {cu_num} fits {archs}; {meaning}, before that each of them"
        found.append(Hazard("ambiguous_key", text, group[0].source))
    return found


def _misnamed_gpus(rows: list[Row]) -> list[Hazard]:
    """Rows for a product's name or torch's ``gcnArchName``: AITER looks up the bare gfx name."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.gfx and not _GFX_NAME.fullmatch(row.gfx):
            first.setdefault((_file(row), row.gfx), row)
    text = "gfx {!r} is never looked up: AITER asks for the bare gfx name, such as gfx950"
    return [Hazard("stale_row", text.format(row.gfx[:64]), row.source) for row in first.values()]


def _shadowed(rows: list[Row]) -> list[Hazard]:
    by_key: dict[tuple[object, ...], Row] = {}
    by_file: dict[str, list[tuple[Row, Row]]] = defaultdict(list)
    dropped = behaviour_of(None).data.dropped_tags
    for row in (row for row in rows if row.tag not in dropped):
        first_row = by_key.setdefault((*row[1:8], *row[9:15]), row)
        if first_row.act_type != row.act_type and decided_columns(first_row) != decided_columns(row):
            by_file[_file(row)].append((row, first_row))
    found = []
    for pairs in by_file.values():
        row, first_row = pairs[0]
        text = (
            f"{len(pairs)} rows are answered by a row of another activation where AITER ignores act_type "
            f"(0.1.14 to 0.1.17, 0.1.20 on): here {first_row.source} ({first_row.act_type}) answers for {row.act_type}"
        )
        found.append(Hazard("ambiguous_key", text, row.source))
    return found


def table_hazards(rows: list[Row], grouped: list[GroupedRow], families: Families) -> list[Hazard]:
    """Return every hazard of loaded rows, in a stable order."""
    return [
        *_unknown_kernels(rows, families),
        *_unknown_kernels(grouped, families),
        *contradictions(rows),
        *_shared_archs(rows),
        *_misnamed_gpus(rows),
        *_shadowed(rows),
    ]
