"""Kernel tables, plans and other bodies made to cost as much as one can, and real ones with values of a wrong kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from support.aiter.kernel_rows import BASE, SEP, SWIGLU, table
from support.bombs.bodies import APPLIED, LIMIT, QUERY, shapeless
from support.bombs.configs import mutants

LARGE: Final = 8 << 20
"""Bytes of a large table; 16 MiB are allowed."""
PLAN: Final[dict[str, Any]] = {"books": [{"a.yaml": "rules: {}\n"}], "deployments": "*", "aiter": "0.1.20"}
SAMPLES: Final[dict[str, Any]] = {
    "/v1/resolve": {**QUERY, "env": {"AITER_KSPLIT": "1"}, "tokens": [1, 64]},
    "/v1/resolve/batch": {"queries": [QUERY]},
    "/v1/check": {"query": QUERY, "applied": {**APPLIED, "kernels": [{"tokens": 1, "stage1": "moe_ck2stages_x"}]}},
    "/v1/check/batch": {"observations": [{"query": QUERY, "applied": APPLIED}]},
    "/v1/deployments/mutant": {"groups": [{"layers": "0-3", "observation": {"query": QUERY, "applied": APPLIED}}]},
    "/v1/kernels/tables/0.1.19": {"a.csv": "x"},
    "/v1/conformance/0.1.20": {"preshuffle": "0.1.0", "aiter": {"id": "0.1.20"}, "claims": {"bytes": {"tried": 1}}},
    "/v1/deployments/d/heartbeat": {"digest": "x"},
}
"""A small body of every path that takes JSON and computes in the service itself."""


def plans() -> Iterator[tuple[str, bytes]]:
    """Yield bodies for ``/v1/plan``."""
    yield from shapeless()
    long = "x" * 900_000
    for field in ("aiter", "deployments", "books"):
        for name, value in (("text", long), ("list", [[]] * 90_000), ("number", 10**4000), ("surrogate", "\ud800\0")):
            yield f"{field} of a long {name}", _text({**PLAN, field: value})
    yield "many books", _text({"books": [{f"b{index}.yaml": "rules: {}\n"} for index in range(30_000)]})
    yield "many files", _text({"books": [{f"f{index}.yaml": "rules: {}\n" for index in range(30_000)}]})
    yield "a file's long name", _text({"books": [{long: "rules: {}\n"}]})
    yield "names above the folder", _text({"books": [{"../../etc/a.yaml": "rules: {}", "/a.yaml": "", "\0.yaml": ""}]})
    yield "deep YAML", _text({"books": [{"a.yaml": "[" * 400_000}]})
    yield (
        "aliases",
        _text({"books": [{"a.yaml": "a: &a [x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9_000))}]}),
    )
    yield "bad keys", _text({"books": [{"a.yaml": "".join(f"k{index}: 1\n" for index in range(60_000))}]})
    yield "surrogates", b'{"books":[{"a.yaml":"\\ud800"}],"deployments":"\\udfff*"}'
    yield "stars", _text({**PLAN, "deployments": "*a" * 400_000})
    yield "tables of nothing", _text({**PLAN, "tables": [{"a.csv": "\0" * 100_000}]})


def tables() -> Iterator[tuple[str, bytes, str]]:
    """Yield kernel tables: name, body, media type."""
    row = {**BASE, **SWIGLU, "token": "512", "kernelName1": SEP}
    good = table(row).decode()
    header, line = good.splitlines()[:2]
    csv = "text/csv"
    yield "the same row often", (header + "\n" + f"{line}\n" * (LARGE // len(line))).encode(), csv
    rows = "".join(f"{line}\n".replace("512", str(512 + index), 1) for index in range(LARGE // len(line)))
    yield "many rows", f"{header}\n{rows}".encode(), csv
    yield "200,000 empty rows", (header + "\n" + "\n" * 200_000).encode(), csv
    yield "200,000 rows of one cell", (header + "\n" + "1\n" * 200_000).encode(), csv
    yield "200,000 rows of commas", (header + "\n" + f"{',' * header.count(',')}\n" * 200_000)[:LARGE].encode(), csv
    yield "one quote that never closes", f'{header}\n"{"x" * LIMIT}'.encode(), csv
    yield "a quote in every row", (header + "\n" + f'"{line}\n' * 20_000).encode(), csv
    yield "quotes alone", (header + "\n" + '"' * LIMIT).encode(), csv
    yield "a long cell", f"{header}\n{line.replace('512', '5' * LIMIT, 1)}".encode(), csv
    yield "a long kernel", table({**row, "kernelName1": "moe_ck2stages_" * 60_000}), csv
    yield "a long header", f"{'c,' * 400_000}\n{line}".encode(), csv
    yield "a column often", f"{header}{',token' * 100_000}\n{line}".encode(), csv
    yield "NULs", b"\0" * LIMIT, csv
    yield "NULs in cells", f"{header}\n{line.replace(',', chr(0) + ',')}".encode(), csv
    yield "no text", bytes(range(256)) * 4096, csv
    yield "UTF-16", good.encode("utf-16"), csv
    yield "carriage returns", good.replace("\n", "\r").encode() * 100, csv
    yield "numbers that are none", table({**row, "token": "NaN", "expert": "1e400", "cu_num": "-9" * 3000}), csv
    yield "other digits", table({**row, "token": "٥١٢", "topk": "²"}), csv
    yield from ((f"JSON of {name}", _text(value), "application/json") for name, value in _several(good).items())
    for name, body in shapeless():
        yield f"JSON of {name}", body, "application/json"


def _several(good: str) -> dict[str, Any]:
    """Return bodies of several files."""
    named = {f"model_configs/m{index}_tuned_fmoe.csv": good for index in range(256)}
    return {
        "many files": {f"f{index}_tuned.csv": good for index in range(400)},
        "as many files as may be": named,
        "such files of many rows": {name: good + good.splitlines()[1] * 100 for name in named},
        "empty files": dict.fromkeys(map(str, range(60_000)), ""),
        "names above": {"../a_tuned.csv": good, "/etc/b.csv": good, "\0.csv": good, "tuned\n.csv": good},
        "long names": {"tuned" + "a" * 400_000 + ".csv": good},
        "lists": {"tuned_fmoe.csv": [[good]] * 1000},
        "a surrogate": {"tuned_fmoe.csv": f"{good}\ud800"},
        "NULs": {"tuned_fmoe.csv": f"{good}\0"},
    }


def wrong_bodies(path: str) -> Iterator[tuple[str, bytes]]:
    """Yield a path's small body with one value of a wrong kind each."""
    for name, body in mutants(SAMPLES[path]):
        yield name, _text(body)


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
