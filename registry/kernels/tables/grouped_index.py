"""Index of the grouped-GEMM tables."""

from preshuffle.registry.kernels.tables.rows import GroupedRow


class GroupedIndex:
    """Grouped rows, by the columns that they fill in.

    An empty cell matches anything.
    """

    def __init__(self, rows: list[GroupedRow]) -> None:
        """Index the rows with and without their number of compute units."""
        self._with_cu: dict[tuple[str, ...], dict[tuple[str, ...], GroupedRow]] = {}
        self._without_cu: dict[tuple[str, ...], dict[tuple[str, ...], GroupedRow]] = {}
        for row in rows:
            self._add(self._with_cu, dict(row.key), row)
            self._add(self._without_cu, {name: text for name, text in row.key if name != "cu_num"}, row)

    @staticmethod
    def _add(
        index: dict[tuple[str, ...], dict[tuple[str, ...], GroupedRow]], key: dict[str, str], row: GroupedRow
    ) -> None:
        stored = index.setdefault(tuple(key), {})
        values = tuple(key.values())
        if values not in stored or row.us < stored[values].us:
            stored[values] = row

    def find(self, key: dict[str, str]) -> GroupedRow | None:
        """Return the fastest row that matches a key.

        Rows for another number of compute units count only if no other matches.
        """
        for index in (self._with_cu, self._without_cu):
            found = [rows.get(tuple([key[name] for name in names])) for names, rows in index.items()]
            matches = [row for row in found if row is not None]
            if matches:
                return min(matches, key=lambda row: row.us)
        return None
