"""What a finding's fix tells to change, read from its text as an operator would."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from preshuffle.registry import Query
from preshuffle.registry.loading import Book

Raw = dict[str, Any]
WEIGHTS: Final = ("w13_weight", "w2_weight")

_VERSION: Final = r"(\d+(?:\.\d+)+(?:\.?(?:post|rc|dev)\d+)*)"
_AITER: Final = re.compile(rf"\bAITER {_VERSION}")
_ENGINE: Final = re.compile(rf"\b(?:take|from|ask for) (vLLM|SGLang|ATOM) {_VERSION}")
_IN: Final = re.compile(r"\bin (vLLM|SGLang|ATOM) [A-Z-]")
_LAYOUT: Final = re.compile(r"\blay (w13|w2)(_weight|_weight_scale|_bias)? out as (\w+)")
_ARGUMENT: Final = re.compile(r"\b(gate_mode|hidden_pad|intermediate_pad|swiglu_limit)=(\w[\w.]*)")
_TAG: Final = re.compile(r"\bset (\w+)\.is_shuffled = (True|False)")
_SCALES: Final = {"sep16": "e8", "gui16": "e8_gui16", "gurow16": "n32k4_gurow"}


@dataclass(slots=True)
class Change:
    """One way to follow a fix.

    Attributes:
        text: the part of the fix that says so.
        env: switches to set; None unsets.
        aiter: the AITER to take.
        engine: name and version to take.
        applied: arguments of the call.
        layouts: layout by role; scales of MX weights go with their weights.
        tags: ``is_shuffled`` by role.
    """

    text: str
    env: dict[str, str | None] = field(default_factory=dict)
    aiter: str | None = None
    engine: tuple[str, str] | None = None
    applied: dict[str, Any] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)
    tags: dict[str, bool] = field(default_factory=dict)

    @property
    def of_query(self) -> bool:
        """Whether the deployment becomes another, so that it is decided anew."""
        return bool(self.env or self.aiter or self.engine)

    @property
    def of_deployment(self) -> bool:
        """Whether bytes, tags or the call change."""
        return bool(self.applied or self.layouts or self.tags)

    def query(self, raw: Raw) -> Query:
        """Return the query with the change."""
        changed = deepcopy(raw)
        changed["env"] = {**changed.get("env", {}), **self.env}
        changed["env"] = {name: value for name, value in changed["env"].items() if value is not None}
        if self.aiter is not None:
            changed["aiter"] = self.aiter
        if self.engine is not None:
            changed["engine"] = "@".join(self.engine)
        return Query.parse(changed)

    def observation(self, raw: Raw) -> Raw:
        """Return the observation with the change."""
        changed = deepcopy(raw)
        tensors = changed["applied"]["tensors"]
        changed["applied"] |= self.applied
        for role, layout in self.layouts.items():
            tensors[role]["layout"] = layout
            if role in WEIGHTS:
                tensors[role]["is_shuffled"] = layout != "plain"
            if f"{role}_scale" in tensors and layout in _SCALES and tensors[f"{role}_scale"].get("dtype") == "e8m0":
                tensors[f"{role}_scale"]["layout"] = _SCALES[layout]
        for role, tag in self.tags.items():
            tensors[role]["is_shuffled"] = tag
        return changed


def ways_of(book: Book, fix: str, switches: tuple[str, ...] = (), engine: str | None = None) -> Iterator[Change]:
    """Yield each way that a fix offers, as far as its words are exact.

    Args:
        book: its switches.
        fix: the text; ways are parted by ``or``.
        switches: what "the switch" and "both" mean.
        engine: whose deployment it is; a way "in vLLM" is one of vLLM's.
    """
    for part in re.split(r",? or (?=set |unset |take |lay |pass |leave |run |use |load |keep |pad |remove )", fix):
        change = Change(part)
        named = _IN.search(part)
        if named is not None and named[1].lower() != engine:
            continue
        _read_switches(book, part, switches, change)
        if (match := _AITER.search(part)) and not re.search(r"AITER newer than", part):
            change.aiter = match[1]
        if match := _ENGINE.search(part):
            change.engine = (match[1].lower(), match[2])
        for matrix, kind, layout in _LAYOUT.findall(part):
            if layout in book.layouts:
                change.layouts[f"{matrix}{kind or '_weight'}"] = layout
        for name, value in _ARGUMENT.findall(part):
            change.applied[name] = value if name == "gate_mode" else float(value) if "." in value else int(value)
        for role, value in _TAG.findall(part):
            change.tags[role] = value == "True"
        if change.of_query or change.of_deployment:
            yield change


def _read_switches(book: Book, part: str, switches: tuple[str, ...], change: Change) -> None:
    for name in sorted(book.flags, key=len, reverse=True):
        pattern = rf"(?P<verb>unset |leave )?(?<![\w-]){re.escape(name)}(?![\w-])(?:(?:=| to | on )(?P<value>[\w.]+))?"
        for match in re.finditer(pattern, part):
            if match["verb"] == "unset " or match["verb"] == "leave ":
                change.env[name] = None
            elif match["value"] and match["value"] not in ("above",):
                change.env[name] = match["value"]
    if re.search(r"\bunset (?:the switch|both|it)\b", part):
        change.env |= dict.fromkeys(switches)
    if to := re.search(r"\bset the switch to (\w+)", part):
        change.env |= dict.fromkeys(switches[:1], to[1])
