"""One registry of the packaged book for all commands that a process runs: it is immutable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from preshuffle.registry import Registry
from preshuffle.registry.kernels import KernelTables

load = Registry.load


@pytest.fixture(autouse=True)
def packaged_book_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = Registry.default()

    def load_overlays(
        overlays: Iterable[Path | str] = (), kernel_tables: Literal["auto"] | Sequence[Path | str] | None = None
    ) -> Registry:
        if paths := list(overlays):
            return load(paths, kernel_tables)
        return packaged if kernel_tables is None else Registry(packaged.book, KernelTables.named(kernel_tables))

    monkeypatch.setattr(Registry, "load", load_overlays)
