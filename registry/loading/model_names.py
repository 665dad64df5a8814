"""Index of model names: ids, aliases and globs."""

from __future__ import annotations

from collections.abc import Iterable

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import ModelEntry, glob_test


class ModelNames:
    """Lookup of models by id, alias or glob."""

    def __init__(self, models: Iterable[ModelEntry]) -> None:
        """Index plain names and globs; the longest matching glob decides."""
        entries = list(models)
        names = [(alias, entry) for entry in entries for alias in entry.aliases]
        self._plain = {alias: entry for alias, entry in names if not set(alias) & set("*?[")}
        self._plain |= {entry.id: entry for entry in entries}
        globs = sorted((pair for pair in names if pair[0] not in self._plain), key=lambda pair: -len(pair[0]))
        self._globs = [(glob_test(alias), entry) for alias, entry in globs]
        self._memo = Memo()

    def find(self, name: str) -> ModelEntry | None:
        """Return the entry of a model's name, or None.

        A path may end in a slash, as a shell completes it.
        """
        entry = self._plain.get(name)
        if entry is not None:
            return entry
        return self._memo.get("search", name, lambda: self._search(name.rstrip("/")))

    def id_of(self, name: str) -> str:
        """Return the id of a plain alias, or the name itself."""
        entry = self._plain.get(name)
        return name if entry is None else entry.id

    def _search(self, name: str) -> ModelEntry | None:
        plain = self._plain.get(name)
        return plain or next((entry for matches, entry in self._globs if matches(name)), None)
