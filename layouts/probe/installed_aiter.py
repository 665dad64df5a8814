"""Installed AITER as query fields: version and probed features."""

from __future__ import annotations

import inspect
from typing import Any

from preshuffle.layouts.loader import load_aiter_function
from preshuffle.registry import Registry
from preshuffle.registry.entries import FeatureProbe
from preshuffle.registry.layer import installed_aiter


def aiter_here(registry: Registry | None = None) -> dict[str, Any]:
    """Return the installed AITER as fields of a ``Query``.

    The fields ``aiter`` and ``aiter_features``.

    Where AITER can be imported (a machine with ROCm), its functions and their signatures are inspected; for the rest,
    and elsewhere, its sources, of which nothing is run.

    Args:
        registry: whose features; those of the packaged book by default.

    Raises:
        TableError: no AITER is installed, or only the unrelated PyPI distribution ``aiter``.

    Example:
        >>> from preshuffle.registry import Query
        >>> Query(model="openai/gpt-oss-120b", arch="gfx950", **aiter_here())  # doctest: +SKIP
    """
    book = (registry or Registry.default()).book
    here = installed_aiter(book)
    live = {name: seen for name, entry in book.features.items() if (seen := _probe_imported(entry.probe)) is not None}
    fields = here.query_fields()
    return {**fields, "aiter_features": {**fields["aiter_features"], **live}}


def _probe_imported(probe: FeatureProbe | None) -> bool | None:
    """Probe the imported AITER for a function or its parameter.

    None where that says nothing.
    """
    if probe is None or probe.name is None:
        return None
    function = load_aiter_function(probe.module, probe.name)
    if function is None:
        return None  # not importable here, or not there: its sources say which
    if probe.parameter is None:
        return True
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    if probe.parameter in parameters:
        return True
    return None if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()) else False
