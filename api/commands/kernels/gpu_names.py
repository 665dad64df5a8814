"""GPU names in calls: products and torch's ``gcnArchName`` for gfx."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from preshuffle.registry import Registry

_GFX = re.compile(r"gfx[0-9a-f]{3,5}")


def with_gfx_name(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace a call's GPU name by its gfx name.

    A product also gives the compute units, where the call does not state them. An unknown name is left as it is.
    """
    name = call.get("gfx")
    if not isinstance(name, str) or _GFX.fullmatch(name):
        return call
    named = Registry.default().book.arch_names.find(name)
    if named is None:
        return call
    units = {} if named.cu_num is None else {"cu_num": named.cu_num}
    return {**units, **call, "gfx": named.entry.id}
