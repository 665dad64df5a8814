"""Environment variables that preshuffle reads, and misspelt ones.

No library is imported: every command looks here first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Final, NamedTuple

PREFIX: Final = "PRESHUFFLE_"
SETTINGS: Final = (
    *("HOST", "PORT", "DB", "BOOK", "TABLES", "TOKENS", "READS", "MANAGEMENT_PORT", "HEAD_SECONDS", "LOG", "LOG_LEVEL"),
    *("HISTORY_ROWS", "HISTORY_DAYS", "MAX_REPLICAS", "MAX_MIB", "TOKEN_REPLICAS", "TOKEN_MIB"),
    *("PUBLIC_URL", "ROOT_PATH", "METRIC_DEPLOYMENTS", "WEBHOOK_URL", "WEBHOOK_FORMAT", "WEBHOOK_HEADER_FILE"),
)
"""Variables of the service, without prefix: one per field of ``Settings``."""
_OTHERS: Final = ("SERVER", "TOKEN", "DEBUG", "ENGINE_HOOK")
"""Variables of other commands, and of the plugins of engines."""
REPORTING: Final = (
    *("URL", "TOKEN", "TOKEN_FILE", "CA_FILE", "CERT_FILE", "KEY_FILE", "TIMEOUT_S", "DEPLOYMENT", "REPLICA"),
    *("PIPELINE", "NODE", "LABELS", "OWNER", "LINK", "TTL_S", "SPOOL", "SPOOL_MIB", "SPOOL_ENTRIES", "GOODBYE"),
)
"""Variables of engines that report, without ``PRESHUFFLE_SERVICE_``: one per field of ``ServiceSettings``."""
_OF_TESTS: Final = ("REQUIRE_POSTGRES", "REQUIRE_BROWSER", "AITER_WHEEL_ROOT")
KNOWN: Final = frozenset(PREFIX + name for name in (*SETTINGS, *_OTHERS, *(f"SERVICE_{name}" for name in REPORTING)))
_IGNORED: Final = frozenset(PREFIX + name for name in _OF_TESTS)
_OF_KUBERNETES: Final = re.compile(r"_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?|_PORT")
"""Ends of variables that Kubernetes sets for services whose names begin with ``preshuffle``."""
LINK: Final = re.compile(r"(tcp|udp|sctp)://")
"""Begin of the value of one that ends in ``_PORT``."""
_PREFIX_MARK: Final = "SHUF"
"""Part of the prefix that a misspelt one is taken to have."""
_CLOSE: Final = 0.72
"""Likeness of two names without prefix, from which one may be meant by the other."""
_CLOSE_WHOLE: Final = 0.88
"""The same of whole names, where the prefix is misspelt."""
_MOST: Final = 2
_LONGEST: Final = 64
"""Characters of a name that is compared."""


class UnknownVariable(NamedTuple):
    """Environment variable that nothing reads; ``meant`` are names that it resembles."""

    name: str
    meant: tuple[str, ...]

    def __str__(self) -> str:
        """Return the sentence that tells the user."""
        end = f"did you mean {' or '.join(self.meant)}?" if self.meant else "`preshuffle serve --help` names all"
        return f"nothing reads the environment variable {self.name}; {end}"


def unknown_variables(environment: Mapping[str, str]) -> Iterator[UnknownVariable]:
    """Yield variables that are named like preshuffle's own and that nothing reads.

    What Kubernetes sets by itself is left out, and so are variables with another prefix that resemble none.

    Example:
        >>> [one.meant for one in unknown_variables({"PRESHUFFLE_TOKNES": "t.yaml", "PRESHUFFLE_PORT": "80"})]
        [('PRESHUFFLE_TOKENS',)]
    """
    own = {known.removeprefix(PREFIX): known for known in KNOWN}
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if _PREFIX_MARK not in upper or name in KNOWN or name in _IGNORED:
            continue
        if not name.startswith(PREFIX):
            if meant := _nearest(upper, KNOWN, _CLOSE_WHOLE):
                yield UnknownVariable(name, tuple(meant))
        elif not _is_of_kubernetes(name, value):
            meant = _nearest(upper.removeprefix(PREFIX), own, _CLOSE)
            yield UnknownVariable(name, tuple(own[short] for short in meant))


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes sets a variable for a service, or a user would hardly have written it."""
    end = _OF_KUBERNETES.search(name)
    return end is not None and end.end() == len(name) and (end[0] != "_PORT" or LINK.match(value) is not None)


def _nearest(name: str, names: Iterable[str], least: float) -> list[str]:
    """Return the most similar names: those that one begins with come first, then those alike in their letters."""
    if len(name) > _LONGEST:
        return []
    ranked = sorted(((_begins(name, other), _likeness(name, other), other) for other in names), reverse=True)
    close = [(begins, other) for begins, likeness, other in ranked if begins or likeness >= least]
    return [other for begins, other in close if begins == close[0][0]][: _MOST if close and close[0][0] else 1]


def _begins(name: str, other: str) -> bool:
    """Whether a name is another one with more words behind it, in singular or plural."""
    return name.startswith((f"{other}_", f"{other.removesuffix('S')}_"))


def _likeness(name: str, other: str) -> float:
    swapped = len(name) == len(other) and sorted(name) == sorted(other)
    return 1.0 if swapped else SequenceMatcher(None, name, other).ratio()
