"""Rules on the sequence of layout and load events.

Codes: double_shuffle, raw_write.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.values.finding import Finding

_RELOADS = frozenset({"reload", "begin_reload"})


def _history(evidence: Evidence) -> Iterator[tuple[str, int, str]]:
    """Yield each event with its position and the state before it.

    States are ``plain``, ``laid out`` and ``overwritten``.
    """
    state = "plain"
    for place, event in enumerate(evidence.layer.applied.events, 1):
        yield event, place, state
        if event == "apply":
            state = "laid out"
        elif event in _RELOADS:
            state = "plain"
        elif event == "load_raw" and state == "laid out":
            state = "overwritten"


def double_shuffle(evidence: Evidence) -> Iterator[Finding]:
    """Yield a second apply without a reload in between."""
    for event, place, state in _history(evidence):
        if event == "apply" and state == "laid out":
            yield Finding.of(
                "double_shuffle",
                f"the layout was applied a second time (event {place}) with no reload in between; "
                "no weight layout undoes itself",
                expected="reload before apply",
                actual=" → ".join(evidence.layer.applied.events),
                fix="call begin_reload before new weights come in, or apply with again='skip'; to repair live bytes, "
                "apply the inverse once",
            )
            return


def raw_write(evidence: Evidence) -> Iterator[Finding]:
    """Yield plain bytes written where laid-out bytes are expected."""
    for event, place, state in _history(evidence):
        if event == "load_raw" and state == "laid out":
            yield Finding.of(
                "raw_write",
                f"plain bytes were written over laid-out ones (event {place})",
                expected="begin_reload before the write, or write_expert, which lays the slice out",
                actual=" → ".join(evidence.layer.applied.events),
                fix="write with write_expert, or begin_reload, load everything, and apply again",
            )
            return
    yield from _never_laid_out_again(evidence)


def _never_laid_out_again(evidence: Evidence) -> Iterator[Finding]:
    """Yield reloaded bytes that were never laid out.

    They are plain, whatever the tensors' tags still say.
    """
    history = list(_history(evidence))
    reloads = [place for event, place, state in history if event in _RELOADS and state == "laid out"]
    since = [event for event, place, _ in history if reloads and place > reloads[-1]]
    if "load_raw" in since and "apply" not in since and evidence.layer.laid_out:
        yield Finding.of(
            "raw_write",
            f"plain bytes were loaded after the reload (event {reloads[-1]}) and never laid out; "
            "the tensors are still reported as laid out",
            expected="apply after the load",
            actual=" → ".join(evidence.layer.applied.events),
            fix="call finish_reload, or apply again, before the first token",
        )
