"""Figures of the comparison with engines, from their tables.

`python -m support.engines.figures` prints them; `docs/engines-compared.md` holds the same text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_table import engine_table
from support.engines.trees import ENGINES, RELEASES

OUTCOMES = {
    "equal": "equal",
    "rank": "equal bytes in another shape",
    "differs": "differs",
    "apply refuses": "`apply` refuses",
    "refused": "refused here only",
    "equal, other kernels": "not AITER's, both say, bytes equal",
    "refused, other kernels": "not AITER's, both say",
    "both refuse": "raises, refused here too",
    "raises": "raises, not refused here",
    "other kernels": "not AITER's, not said here",
    "not driven": "its code is not as the driver knows it",
}
"""What can come of a case, with the heading of its column."""
OWNERS = ("book", "engine", "aiter")

HEAD = """\
# Compared with the engines' own code

The real code of vLLM, SGLang and ATOM (quantization methods, weight loaders, `process_weights_after_loading`, the call)
was run on a CPU beside the product, on layers with the real inner sizes of the experts, at TP 1, 2, 4 and 8. Every
byte, shape, dtype and tag of what `fused_moe` gets was compared, and every argument of the call. `preshuffle conform
--engine NAME` runs them on whatever engine and AITER is at hand, `make engines` on these releases;
`layouts/conform/engines/tables/*.yaml` are the cases and the known faults, and `python -m support.engines.figures` (in
`tests/`) writes this page.
"""


def counts(cases: Iterable[EngineCase]) -> dict[tuple[str, str], Counter[str]]:
    """Return how many cases have which outcome, by engine and architecture."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for case in cases:
        found.setdefault((case.engine, case.arch), Counter())[case.expect] += 1
    return found


def table(cases: list[EngineCase]) -> list[str]:
    """Return one row per engine and architecture."""
    used = [outcome for outcome in OUTCOMES if any(case.expect == outcome for case in cases)]
    lines = [_row(["run", "layers", *(OUTCOMES[outcome] for outcome in used)]), _row(["---"] * (len(used) + 2))]
    for (engine, arch), found in counts(cases).items():
        name = f"{engine} {RELEASES[engine]}, {arch}"
        lines.append(_row([name, str(found.total()), *(str(found[outcome]) for outcome in used)]))
    return lines


def faults(cases: list[EngineCase]) -> list[str]:
    """Return the named faults, the book's own first, with counts."""
    found = Counter((case.engine, case.fault) for case in cases if case.fault)
    ranked = sorted(found.items(), key=lambda item: (OWNERS.index(item[0][1].partition(":")[0]), item[0]))
    return [f"* {engine}, {count} layers, {fault}" for (engine, fault), count in ranked]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return the whole page."""
    cases = [case for engine in ENGINES for case in engine_cases(engine_table(engine))]
    heading = "## Whose fault a difference is"
    return "\n".join([HEAD, *table(cases), "", heading, "", *faults(cases), ""])


if __name__ == "__main__":
    print(page(), end="")
