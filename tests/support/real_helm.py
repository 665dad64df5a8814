"""Helm itself: the command, else Helm's Go library as helm-python-sdk has it.

``python -m support.real_helm CHART`` reads a list of values and renders and lints the chart under each of them. The
library has threads and signal handlers of its own, so it runs in a child process.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TESTS = Path(__file__).parents[1]
WARNING = 2
"""Severity from which a finding of the linter counts: below it are hints."""


@dataclass(frozen=True, slots=True)
class RealHelm:
    """Helm for one chart; ``command`` is None where the library is used."""

    chart: Path
    command: str | None

    @classmethod
    def here(cls, chart: Path) -> RealHelm | None:
        """Return what is installed, or None."""
        command = shutil.which("helm")
        if command is None and importlib.util.find_spec("helm_python") is None:
            return None
        return cls(chart, command)

    def render(self, several: Sequence[Mapping[str, Any]]) -> list[tuple[list[dict[str, Any]], list[str]]]:
        """Return the objects under each values, and what the linter complains of."""
        if self.command is not None:
            return [self._by_command(self.command, values) for values in several]
        command = [sys.executable, "-m", "support.real_helm", str(self.chart)]
        done = subprocess.run(
            command, cwd=TESTS, input=json.dumps(several), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return [(documents_of(texts), complaints) for texts, complaints in json.loads(done.stdout)]

    def _by_command(self, helm: str, values: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(yaml.safe_dump(dict(values)))
            file.flush()
            given = [str(self.chart), "-f", file.name]
            done = subprocess.run([helm, "template", "preshuffle", *given], capture_output=True, text=True, check=True)
            lint = subprocess.run(
                [helm, "lint", "--strict", "--quiet", *given], capture_output=True, text=True, check=False
            )
        return documents_of([done.stdout]), [lint.stdout + lint.stderr] if lint.returncode else []


def documents_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects in rendered templates."""
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def by_library(chart: str, several: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield rendered templates and complaints under each values."""
    helm: Any = importlib.import_module("helm_python")
    for values in several:
        with helm.Chart.load(chart) as loaded:
            texts = list(loaded.render(values, name="preshuffle", namespace="preshuffle").values())
        found = helm.lint(chart, values, strict=True)
        complaints = [one["error"] for one in found["messages"] if one["severity"] >= WARNING]
        yield texts, [*found["errors"], *complaints]


if __name__ == "__main__":
    print(json.dumps(list(by_library(sys.argv[1], json.load(sys.stdin)))))
