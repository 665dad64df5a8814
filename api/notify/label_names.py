"""Prometheus' names for labels of deployments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count
from typing import Final

_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_]")


def label_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a label name for each key, no two the same.

    Prometheus and Alertmanager know letters, digits and underscores only. A key of these keeps its name; of others that
    would get the same name, all but the first get a number.

    Example:
        >>> label_names(["team", "a-b", "a_b", "a.b"])
        {'a_b': 'label_a_b', 'team': 'label_team', 'a-b': 'label_a_b_1', 'a.b': 'label_a_b_2'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key in sorted(keys, key=lambda key: (_NOT_A_NAME.search(key) is not None, key)):
        name = f"label_{_NOT_A_NAME.sub('_', key)}"
        numbered = (f"{name}_{number}" if number else name for number in count())
        names[key] = next(name for name in numbered if name not in taken)
        taken.add(names[key])
    return names
