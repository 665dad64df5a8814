"""Checks of torch and its GPUs, in a child process.

A broken installation may crash the process that imports it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preshuffle.api.doctor.check import Check, Status
from preshuffle.registry import Registry

_TIMEOUT_S = 120
_INDEX = "https://download.pytorch.org/whl"
_ROCM_VERSION = Path("/opt/rocm/.info/version")
_SOME_ROCM = "rocm7.1"
_PROBE = """
import json, torch
devices = []
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        arch = getattr(facts, "gcnArchName", "").split(":")[0]
        devices.append([facts.name, arch, facts.multi_processor_count])
print(json.dumps({"hip": torch.version.hip, "cuda": torch.version.cuda, "devices": devices}))
"""

_COMPARE = """
import json
from preshuffle.layouts.loader import can_import, compare_layouts_with_aiter
print(json.dumps(compare_layouts_with_aiter() if can_import() else {}))
"""
_VERDICTS = {
    "equal": "the same bytes as AITER's function",
    "differs": "AITER's function gives other bytes: the loader uses AITER's",
    "refused": "AITER's function raises on a small tensor",
    "no function": "this AITER has no function for it",
}


def check_torch(version: str | None, registry: Registry | None) -> Iterator[Check]:
    """Check that torch is installed and imports; list its GPUs."""
    if version is None:
        detail = f"not installed: the loader needs it; registry and service do not. {_other_builds()}"
        fix = f'pip install torch --index-url {_index()} && pip install "preshuffle[layouts]"'
        yield Check(name="torch", status="info", detail=detail, fix=fix)
        return
    facts, error = _probe()
    if facts is None:
        yield Check(name="torch", status="problem", detail=f"{version} does not import: {error}")
        return
    built = f"ROCm {facts['hip']}" if facts["hip"] else f"CUDA {facts['cuda']}" if facts["cuda"] else "CPU only"
    if facts["cuda"] and not facts["hip"]:
        detail = f"{version}, {built}: AITER needs a ROCm build. {_other_builds()}"
        fix = f"pip install --force-reinstall torch --index-url {_index()}"
        yield Check(name="torch", status="info", detail=detail, fix=fix)
    else:
        yield Check(name="torch", status="ok", detail=f"{version}, {built}")
    if not facts["devices"]:
        yield Check(name="gpu", status="info", detail="torch finds none")
    for name, arch, units in facts["devices"]:
        entry = registry.book.archs.get(arch) if registry is not None else None
        if not arch:
            yield Check(name="gpu", status="info", detail=f"{name}: not an AMD GPU, AITER does not run on it")
        elif entry is not None and entry.no_fused_moe:
            yield Check(name="gpu", status="warning", detail=f"{name}: {entry.no_fused_moe}")
        elif entry is not None:
            yield Check(name="gpu", status="ok", detail=f"{name}: {arch}, {units} compute units")
        else:
            yield Check(name="gpu", status="warning", detail=f"{name}: {arch}, which the registry does not know")
    yield from _check_bytes(bool(facts["hip"]))


def _rocm() -> str | None:
    """Return the installed ROCm as PyTorch's indexes name it, such as ``rocm7.1``, or None."""
    try:
        found = re.match(r"\d+\.\d+", _ROCM_VERSION.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return f"rocm{found[0]}" if found else None


def _index() -> str:
    """Return the index of torch's builds for this machine: ROCm's where ROCm is installed, else the CPU's."""
    return f"{_INDEX}/{_rocm() or 'cpu'}"


def _other_builds() -> str:
    rocm = f"{_INDEX}/{_rocm() or _SOME_ROCM}"
    return f"PyPI's torch is built for CUDA; the builds for ROCm are at {rocm}, those for CPUs at {_INDEX}/cpu"


def _check_bytes(hip: bool) -> Iterator[Check]:
    """Compare every layout with AITER's own function; on ROCm only."""
    if not hip:
        yield Check(name="bytes", status="info", detail="not compared: AITER's functions run on ROCm only")
        return
    facts, error = _run(_COMPARE)
    if facts is None:
        yield Check(name="bytes", status="problem", detail=f"AITER's functions could not be compared: {error}")
        return
    for layout, verdict in facts.items():
        status: Status = "problem" if verdict == "differs" else "ok" if verdict == "equal" else "info"
        yield Check(name=f"bytes {layout}", status=status, detail=_VERDICTS.get(verdict, verdict))


def _probe() -> tuple[dict[str, Any] | None, str]:
    return _run(_PROBE)


def _run(program: str) -> tuple[dict[str, Any] | None, str]:
    """Run a program in a child process; return its JSON or error."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"the interpreter ended with {child.returncode}"
    try:
        facts: dict[str, Any] = json.loads(child.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None, "its answer could not be read"
    return facts, ""
