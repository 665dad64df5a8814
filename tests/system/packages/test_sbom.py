"""The bill of materials of an image, and the audit that says when it had nothing to go by."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

PACKAGES = Path(__file__).parents[3] / "deploy" / "packages"
SBOM = PACKAGES / "image_sbom.py"

ON_A_ROOT = """
import json, pathlib, sys
sys.path.insert(0, {folder!r})
import image_sbom
print(json.dumps(image_sbom.bill("host:5000/preshuffle:0.1.0@sha256:1", pathlib.Path({root!r}))))
"""

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u1
Description: library
 Version: not this one

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1:1.0
"""


def document(root: Path) -> dict[str, Any]:
    program = ON_A_ROOT.format(folder=str(PACKAGES), root=str(root))
    done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, check=True)
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def test_it_lists_python_and_debian_packages_by_purl(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\n')
    bill = document(tmp_path)
    purls = {entry["purl"] for entry in bill["components"]}
    assert f"pkg:pypi/pydantic@{metadata.version('pydantic')}" in purls
    debian = {purl for purl in purls if purl.startswith("pkg:deb/")}
    assert debian == {"pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64&distro=debian-13"}
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "host:5000/preshuffle"
    assert bill["metadata"]["component"]["version"] == "0.1.0"
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    references = [entry["bom-ref"] for entry in bill["components"]]
    assert len(references) == len(set(references))
    assert bill["dependencies"] == [{"ref": "image", "dependsOn": references}]


def test_the_same_packages_give_the_same_document(tmp_path: Path) -> None:
    assert document(tmp_path) == document(tmp_path)


def test_it_runs_from_standard_input_with_nothing_but_python() -> None:
    text = SBOM.read_text(encoding="utf-8")
    command = [sys.executable, "-I", "-S", "-", "preshuffle"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["metadata"]["component"]["name"] == "preshuffle"


CLEAN = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
FOUND = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}]}
SKIPPED = {"dependencies": [{"name": "a", "skip_reason": "Dependency not found"}]}


@pytest.mark.parametrize(
    ("prints", "status", "says"),
    [
        (json.dumps(CLEAN), 0, "1 packages audited, 0 known vulnerabilities"),
        (json.dumps(FOUND), 1, "a 1: PYSEC-1, fixed by 2"),
        (json.dumps(SKIPPED), 3, "1 not audited (Dependency not found): a"),
        ("", 3, "no vulnerability database answered"),
    ],
)
def test_an_audit_without_a_database_is_no_clean_audit(prints: str, status: int, says: str, tmp_path: Path) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(f"#!{sys.executable}\nprint({prints!r})\n")
    program.chmod(0o755)
    command = [sys.executable, str(PACKAGES / "audit.py"), str(program), "requirements/service.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
