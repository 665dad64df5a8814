"""Prints a CycloneDX 1.6 bill of materials of the machine it runs on: Python and Debian packages.

It is run inside an image, so it needs nothing but Python:
``docker run --rm -i --entrypoint python3 IMAGE - IMAGE < deploy/packages/image_sbom.py``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

ROOT = Path("/")


def python_components() -> Iterator[dict[str, Any]]:
    """Yield a component for each distribution that Python can import."""
    seen: set[str] = set()
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name and name not in seen:  # the first on sys.path is the one that is imported
            seen.add(name)
            yield _component(name, distribution.version, f"pkg:pypi/{quote(name)}@{quote(distribution.version)}")


def debian_components(root: Path) -> Iterator[dict[str, Any]]:
    """Yield a component for each installed Debian package; none where dpkg has no database."""
    status = root / "var/lib/dpkg/status"
    release = _release(root)
    system = quote(release.get("ID", "debian"))
    distro = quote(f"{release.get('ID', 'debian')}-{release.get('VERSION_ID', 'unknown')}")
    for paragraph in status.read_text(encoding="utf-8").split("\n\n") if status.is_file() else ():
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Status") != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        arch = fields["Architecture"]
        yield _component(name, version, f"pkg:deb/{system}/{quote(name)}@{quote(version)}?arch={arch}&distro={distro}")


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _release(root: Path) -> dict[str, str]:
    """Return the fields of /etc/os-release."""
    file = root / "etc/os-release"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {key: text.strip('"') for key, _, text in (line.partition("=") for line in lines)}


def bill(image: str, root: Path = ROOT) -> dict[str, Any]:
    """Return the document; the same packages give the same bytes."""
    components = sorted([*python_components(), *debian_components(root)], key=lambda entry: str(entry["bom-ref"]))
    name, _, version = image.partition("@")[0].rpartition(":")
    if "/" in version or not name:  # the colon was that of a port, or there is none
        name, version = image, ""
    subject = {"type": "container", "bom-ref": "image", "name": name, **({"version": version} if version else {})}
    digest = hashlib.sha256(json.dumps([subject, components]).encode()).digest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [entry["bom-ref"] for entry in components]}],
    }


def main(arguments: Sequence[str]) -> int:
    """Print the bill of materials of the image whose name is given."""
    print(json.dumps(bill(arguments[0] if arguments else "preshuffle"), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
