"""Answers with their source, and results of reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, get_args

import httpx

from preshuffle.api.client.problems import UnavailableError, not_ours
from preshuffle.api.fleet import Receipt, ReplicaReport, codes_of, fixes_of, worst_of_groups
from preshuffle.registry.base.errors import PreshuffleError
from preshuffle.registry.values.finding import FindingCode
from preshuffle.registry.values.report import MEANINGS, Report, Verdict

if TYPE_CHECKING:
    from preshuffle.registry import Registry

T = TypeVar("T")
_CODES: Final = frozenset(get_args(FindingCode))
REFUSED: Final[tuple[Verdict, ...]] = ("mismatch", "unsupported")
"""Verdicts with which a deployment must not serve."""


class VerdictError(PreshuffleError, RuntimeError):
    """Verdict that the caller of ``raise_if`` does not accept.

    Attributes:
        verdict: of the report.
        codes: of all that was found, errors first.
        fixes: what to do about it, errors first.
    """

    def __init__(self, told: Told) -> None:
        """Take the result that is not accepted."""
        self.verdict: Verdict = told.verdict
        self.codes = told.codes
        self.fixes = told.fixes
        found = f" ({', '.join(self.codes)})" if self.codes else ""
        super().__init__("; ".join([f"{self.verdict}{found}: {MEANINGS[self.verdict]}", *self.fixes]))


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """Answer, with its source.

    Attributes:
        value: the answer.
        source: ``service``, or ``embedded``: the book installed here, because the service was unavailable.
        why: why it was unavailable; None if it answered.
    """

    value: T
    source: Literal["service", "embedded"] = "service"
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Result of reporting a replica.

    Attributes:
        receipt: acknowledgement of the service; None if it was unavailable.
        report: otherwise, check by the embedded book: all groups' findings and the worst verdict.
    """

    receipt: Receipt | None = None
    report: Report | None = None

    @property
    def verdict(self) -> Verdict:
        """Worst verdict of the groups."""
        result = self.receipt or self.report
        return result.verdict if result else "unknown"

    @property
    def codes(self) -> tuple[FindingCode, ...]:
        """Codes of all that was found, errors first, each once."""
        if self.receipt is not None:
            return self.receipt.codes
        return codes_of(self.report.findings) if self.report else ()

    @property
    def fixes(self) -> tuple[str, ...]:
        """What to do about it, errors first, each once."""
        if self.receipt is not None:
            return self.receipt.fixes
        return fixes_of(self.report.findings) if self.report else ()

    def raise_if(self, *verdicts: Verdict) -> None:
        """Raise if the verdict is one of these.

        Where none is named, those are ``mismatch`` and ``unsupported``.

        Raises:
            VerdictError: it is.
            ValueError: no verdict has this name.
        """
        if self.verdict in checked_verdicts(verdicts):
            raise VerdictError(self)


def checked_verdicts(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Return the named verdicts; ``REFUSED`` where none is named.

    Raises:
        ValueError: no verdict has this name.
    """
    named = tuple(verdicts)
    for verdict in named:
        if verdict not in MEANINGS:
            raise ValueError(f"{verdict!r} is not a verdict; valid: {', '.join(MEANINGS)}")
    return named or REFUSED


def read_receipt(response: httpx.Response) -> Receipt:
    """Parse a receipt of this or another version of the service.

    Fields and codes that this version does not know are left out; without a verdict it is ``unknown``.

    Raises:
        UnavailableError: it is no receipt, so the response is not preshuffle's.
    """
    try:
        value: Any = response.json()
        fields: dict[str, Any] = {"verdict": "unknown", "codes": (), "fixes": ()}
        fields |= {name: value[name] for name in Receipt.model_fields if name in value}
        fields["codes"] = tuple(code for code in fields["codes"] if code in _CODES)
        return Receipt.model_validate(fields)
    except (ValueError, TypeError):
        raise UnavailableError(not_ours(response, "the report"), response.status_code) from None


def check_embedded(registry: Registry, report: ReplicaReport) -> Told:
    """Check a replica's report with a registry of this process.

    Raises:
        QueryError: an observation is not valid.
    """
    checks = [registry.check(group.observation) for group in report.groups]
    findings = tuple(finding for group in checks for finding in group.findings)
    notes = tuple(dict.fromkeys(note for group in checks for note in group.notes))
    verdict = worst_of_groups(group.verdict for group in checks)
    reads = tuple(dict.fromkeys(read for group in checks for read in group.reads))
    return Told(report=Report(verdict=verdict, findings=findings, notes=notes, reads=reads))
