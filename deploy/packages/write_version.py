"""Write pyproject.toml's version wherever the repository names its own images or the chart.

``python deploy/packages/write_version.py`` is a part of ``make changelog``: the version is set in one place.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CHART: Final = "deploy/helm/preshuffle"
_FOLDERS: Final = ("deploy", "docs", "Dockerfile", "README.md", "CONTRIBUTING.md")
_IMAGES: Final = re.compile(r"(?P<before>\bghcr\.io/preshuffle/[\w-]+:)\d[\w.+-]*")
_OF_CHART: Final = {
    f"{CHART}/Chart.yaml": re.compile(r'(?m)^(?P<before>(?:version: |appVersion: "))[^"\n]+'),
    f"{CHART}/values.yaml": re.compile(r'(?m)^(?P<before>  tag: ")[^"\n]+'),
}


def write_version(root: Path, version: str) -> list[str]:
    """Write a version into a checkout's files; return those that changed."""
    changed = []
    for name in _files(root):
        path = root / name
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        patterns = [_IMAGES, *([_OF_CHART[name]] if name in _OF_CHART else [])]
        written = text
        for pattern in patterns:
            written = pattern.sub(rf"\g<before>{version}", written)
        if written != text:
            path.write_text(written, encoding="utf-8")
            changed.append(name)
    return changed


def _files(root: Path) -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", *_FOLDERS], capture_output=True, check=True
    ).stdout
    return [name for name in listed.decode().split("\0") if name and (root / name).is_file()]


def main() -> int:
    """Write the version, and print which files changed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in write_version(ROOT, project["version"]):
        print(f"{name}: {project['version']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
