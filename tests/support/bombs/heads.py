"""Requests without a body that cost as much as a head of 32 KiB can: path, query and headers, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

LONGEST: Final = 31_000
QUERY: Final = "model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2&"
_TEXTS: Final = {
    "letters": "a" * LONGEST, "slashes": "/" * LONGEST, "percents": "%25" * (LONGEST // 3),
    "pictures": "%F0%9F%98%80" * (LONGEST // 12), "commas": "," * LONGEST, "numbers": ",".join(["1"] * (LONGEST // 2)),
    "a number": "9" * LONGEST, "4000 digits": "9" * 4000, "below zero": "-1", "no text": "%00", "not UTF-8": "%ff%fe",
    "spaces": "%20" * (LONGEST // 3), "markup": "%3Cscript%3E" * (LONGEST // 13), "dots": "../" * (LONGEST // 3),
    "a version": "1." * (LONGEST // 2) + "1", "a glob": "*a" * (LONGEST // 2),
    "a pattern": "(a%2B)%2B" * (LONGEST // 9),
    "lines": "%0A" * (LONGEST // 3), "equals signs": "=" * LONGEST, "infinity": "1e999", "brackets": "[" * LONGEST,
}  # fmt: skip
_QUERIES: Final = {
    "empty parameters": "a&" * (LONGEST // 2),
    "unknown parameters": "&".join(f"a{index}=" for index in range(4000)),
    "one parameter often": "model=x&" * (LONGEST // 8),
    "switches": QUERY + "&".join(f"env=A{index}=1" for index in range(2500)),
    "switches of an engine": QUERY + "engine=vllm@0.33.0&" + "&".join(f"env=VLLM_MOE{n}=x" for n in range(1500)),
    "256 token counts": QUERY + "tokens=" + ",".join(str(250 * index + 1) for index in range(256)),
    "features": QUERY + "aiter_features=" + ",".join(f"f{index}" for index in range(3000)),
}
_HEADERS: Final = {
    "If-None-Match": '"a",' * 7000, "X-Request-ID": "a" * 30_000, "Accept-Encoding": "gzip ," * 5000,
    "Accept": "*/*;q=0.1," * 3000, "Authorization": "Basic " + "YTo=" * 7000, "Cookie": "a=b;" * 7000,
    "Range": "bytes=0-1," * 2500, "Content-Type": ";" * 30_000, "X-Forwarded-For": "1," * 14_000,
}  # fmt: skip
_PAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "/": ("state", "after"), "/deployments/{name}": ("q",), "/changes": ("before",),
    "/resolve": ("model", "env", "tokens"),
    "/deployments/{name}/changes": ("before",), "/book": ("q",), "/book/diff": ("before", "after"), "/plan": ("aiter",),
    "/book/{section}": ("q",), "/book/{section}/{id}": ("q",), "/docs": ("q",), "/static/{name}": ("q",),
    "/none": ("q",),
    "/healthz": ("q",), "/readyz": ("q",), "/metrics": ("q",), "/openapi.json": ("q",),
}  # fmt: skip


def heads(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield a name, a path with its query, and headers, for every page and every GET of an OpenAPI document."""
    for path, parameters in {**_operations(schema), **_PAGES}.items():
        plain = path.replace("{section}", "rules")
        filled = re.sub(r"\{[^}]*\}", "x", plain)
        for name, text in _TEXTS.items():
            if "{" in plain:
                yield f"{path} of {name}", re.sub(r"\{[^}]*\}", text[:30_000], plain, count=1), {}
            for parameter in parameters:
                yield f"{path}?{parameter} of {name}", f"{filled}?{QUERY}{parameter}={text[:30_000]}", {}
        for name, query in _QUERIES.items():
            yield f"{path} with {name}", f"{filled}?{query}", {}
        for name, value in _HEADERS.items():
            yield f"{path} with {name}", filled, {name: value}


def _operations(schema: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    gets = {path: item["get"] for path, item in schema["paths"].items() if "get" in item and path != "/v1/events"}
    return {
        path: tuple(parameter["name"] for parameter in get.get("parameters", ()) if parameter["in"] == "query")
        for path, get in gets.items()
    }
