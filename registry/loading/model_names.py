"""Index of model names: ids, aliases and globs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from preshuffle.registry.base.globs import glob_test, is_glob
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import ModelEntry

_Ranked = tuple[int, int, ModelEntry]
"""Length of a glob, negative; its number; its entry."""


class ModelNames:
    """Lookup of models by id, alias or glob.

    Attributes:
        effort: of looking a name up that is neither an id nor a plain alias, in steps of about a microsecond.
    """

    def __init__(self, models: Iterable[ModelEntry]) -> None:
        """Index plain names and globs; the longest matching glob decides."""
        entries = list(models)
        names = [(alias, entry) for entry in entries for alias in entry.aliases]
        self._plain = {alias: entry for alias, entry in names if not is_glob(alias)}
        self._plain |= {entry.id: entry for entry in entries}
        self._by_tail: dict[str, _Ranked] = {}
        self._globs: list[tuple[Callable[[str], bool], _Ranked]] = []
        for number, (alias, entry) in enumerate(names):
            ranked = (-len(alias), number, entry)
            if alias in self._plain:
                continue
            if alias.startswith("*") and not is_glob(alias[1:]):
                self._by_tail.setdefault(alias[1:], ranked)
            else:
                self._globs.append((glob_test(alias), ranked))
        self._lengths = sorted({len(tail) for tail in self._by_tail})
        costly = sum(20 for alias, _ in names if not {"?", "["}.isdisjoint(alias))
        self.effort = 2 + (len(self._globs) + len(self._lengths) + costly) // 3
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
        """Search a name; one without an owner stands for any owner's."""
        plain = self._plain.get(name)
        return plain or self._closest(name) or (None if "/" in name else self._closest(f"/{name}"))

    def _closest(self, name: str) -> ModelEntry | None:
        return min(self._matching(name), default=(0, 0, None), key=lambda ranked: ranked[:2])[2]

    def _matching(self, name: str) -> Iterator[_Ranked]:
        for length in self._lengths:
            if length <= len(name) and (ranked := self._by_tail.get(name[len(name) - length :])):
                yield ranked
        for matches, ranked in self._globs:
            if matches(name):
                yield ranked
