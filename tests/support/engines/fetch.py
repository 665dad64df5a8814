"""Fetch the engines' releases into folders of `.engines/`.

`python -m support.engines.fetch` needs pip and git. What cannot be had is said, and its layers are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.engines.trees import RELEASES, ROOT, tree_of, variable_of

WHEELS = ("vllm", "sglang")
REPOSITORIES = {
    "atom": ("https://github.com/ROCm/ATOM", "ffdf3bb5ddf8a15a64d521a2eeb3bc7438f9ac21"),
    "aiter": ("https://github.com/ROCm/aiter", "e4048607a535ace3a2b51ded31b1c8c2d45c0879"),
}
"""Repositories with the commit that is run."""
DEPENDENCIES = ("msgspec", "orjson", "psutil", "compressed-tensors", "loguru")
"""Small packages for which a stand-in would not do."""


def install(folder: Path, *packages: str) -> None:
    """Install packages without their dependencies into a folder."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(folder), *packages], check=True)


def clone(folder: Path, url: str, commit: str) -> None:
    """Check one commit of a repository out, without its history."""
    folder.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(folder)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "fetch", "--quiet", "--depth", "1", url, commit], check=True)
    subprocess.run([*git, "checkout", "--quiet", "FETCH_HEAD"], check=True)


def fetch(name: str) -> None:
    """Fetch one tree."""
    if name in WHEELS:
        install(ROOT / name, f"{name}=={RELEASES[name]}")
    else:
        clone(ROOT / name, *REPOSITORIES[name])


def main() -> None:
    """Fetch what is not here yet."""
    for name in (*WHEELS, *REPOSITORIES):
        if tree_of(name) is None and not os.environ.get(variable_of(name)):
            try:
                fetch(name)
            except (subprocess.CalledProcessError, OSError) as error:
                print(f"{name} {RELEASES[name]} cannot be had here, its layers are skipped: {error}", file=sys.stderr)
    if not (ROOT / "dependencies").exists():
        install(ROOT / "dependencies", *DEPENDENCIES)


if __name__ == "__main__":
    main()
