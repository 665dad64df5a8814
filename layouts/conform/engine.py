"""An engine's own conversion of small layers: why it was not run."""

from __future__ import annotations

from importlib import metadata

from preshuffle.layouts.conform.claim_log import ClaimLog

_REPOSITORY = "`make engines` in preshuffle's repository runs them: docs/engines-compared.md has the figures"


def check_engine(engine: str | None) -> ClaimLog:
    """Say why an engine's conversions were not run.

    They are driven by the repository's tests, release by release, since each engine needs stand-ins of its own.

    Args:
        engine: its name.
    """
    log = ClaimLog()
    try:
        found = f"{engine} {metadata.version(str(engine))} is installed"
    except metadata.PackageNotFoundError:
        found = f"{engine} is not installed"
    log.not_run(
        f"{engine}: its own conversions of small layers", f"{found}, but no driver comes with it; {_REPOSITORY}"
    )
    return log
