"""Runs pip-audit on locked requirements; tells vulnerable from not audited.

Exit codes: 0 nothing known, 1 vulnerable, 3 no vulnerability database could be reached, so nothing was audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

NOT_AUDITED = 3


def main(arguments: Sequence[str]) -> int:
    """Audit each lock (``audit.py PIP_AUDIT LOCK…``) and print what was found."""
    program, *locks = arguments
    status = 0
    for lock in locks:
        ended = subprocess.run(
            [program, "--requirement", lock, "--disable-pip", "--require-hashes", "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            dependencies: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
        except (ValueError, KeyError, TypeError):
            reason = (ended.stderr.strip().splitlines() or ["pip-audit gave no report"])[-1]
            print(f"audit: {lock} was not audited, no vulnerability database answered: {reason[:300]}", file=sys.stderr)
            return NOT_AUDITED
        found = [(entry, vulnerability) for entry in dependencies for vulnerability in entry.get("vulns", ())]
        for entry, vulnerability in found:
            fixes = ", ".join(vulnerability.get("fix_versions", ())) or "no release"
            print(f"{lock}: {entry['name']} {entry['version']}: {vulnerability['id']}, fixed by {fixes}")
        skipped = [entry for entry in dependencies if "skip_reason" in entry]
        if skipped:
            names = ", ".join(entry["name"] for entry in skipped)
            print(f"{lock}: {len(skipped)} not audited ({skipped[0]['skip_reason']}): {names}", file=sys.stderr)
        print(f"{lock}: {len(dependencies) - len(skipped)} packages audited, {len(found)} known vulnerabilities")
        status = status or (1 if found else NOT_AUDITED if skipped else 0)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
