"""Compilation of a FlyDSL kernel to MLIR, in a child process."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preshuffle.layouts.derive.errors import AiterNotInstalledError, DeriveError
from preshuffle.layouts.derive.flydsl.families import FLOATS, NUMBERS, FlydslName, flydsl_name
from preshuffle.layouts.derive.flydsl.ir_file import IrFile
from preshuffle.registry.kernels import TableError, installed_package

PACKAGE = "flydsl"
KERNELS = "aiter/ops/flydsl"
WORKER = Path(__file__).with_name("build_worker.py")
TIMEOUT = 300
EXPERTS, TOP_K = 2, 2
LEAST_COLUMNS, LEAST_K = 256, 512
"""Columns of stage 1, and K of stage 2: two tiles of scale groups."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the call of a kernel decides, not its name.

    Attributes:
        gate_mode: ``separated`` or ``interleave``: of kernels whose name does not say it.
        activation: ``silu``, ``swiglu`` or ``situv2``.
        bias: whether a bias is added before the activation.
        experts: of the layer.
        hidden_pad: of ``model_dim``, columns of the layer that are padding.
        intermediate_pad: of ``inter_dim``.
    """

    gate_mode: str = "separated"
    activation: str = "silu"
    bias: bool = False
    experts: int = EXPERTS
    hidden_pad: int = 0
    intermediate_pad: int = 0


def build_kernel(kernel: str, aiter: str, arch: str, options: BuildOptions | None = None) -> IrFile:
    """Compile a kernel of an AITER to MLIR.

    Args:
        kernel: its name in AITER's tables.
        aiter: ``installed``, or a checkout's folder.
        arch: GPU to compile for.
        options: what its call decides.

    Raises:
        AiterNotInstalledError: AITER or FlyDSL is missing.
        DeriveError: AITER has no such kernel or cannot build it.
    """
    named, options = flydsl_name(kernel), options or BuildOptions()
    if options.gate_mode == "interleave" and not named.called.builder.interleave:
        raise DeriveError(f"{kernel}: its name, not the call, says whether gate and up alternate")
    if find_spec(PACKAGE) is None:
        raise AiterNotInstalledError(f"FlyDSL compiles this kernel and is not installed: pip install {PACKAGE}")
    root, version = aiter_root(aiter)
    sizes = layer_sizes(named, options.experts)
    with tempfile.TemporaryDirectory() as folder:
        facts = _run_worker(_request(kernel, named, sizes, options, root, arch), Path(folder), arch)
        text = (Path(folder) / "kernel.mlir").read_text(encoding="utf-8")
    return IrFile.of(
        {
            "kernel": kernel,
            "aiter": version,
            "gate_mode": options.gate_mode,
            "activation": options.activation,
            "bias": options.bias,
            "hidden_pad": options.hidden_pad,
            "intermediate_pad": options.intermediate_pad,
            **sizes,
            **facts,
        },
        text,
    )


def aiter_root(aiter: str) -> tuple[Path, str | None]:
    """Return the folder that holds AITER's package, and its commit or version.

    Raises:
        AiterNotInstalledError: there is no AITER.
        DeriveError: it has no FlyDSL kernels.
    """
    root, version = _installed() if aiter == "installed" else (Path(aiter), None)
    version = _commit(root) or version
    if not (root / KERNELS).is_dir():
        raise DeriveError(f"{root} has no {KERNELS}: this AITER{f' ({version})' if version else ''} is without FlyDSL")
    return root.resolve(), version


def _installed() -> tuple[Path, str | None]:
    try:
        package, version = installed_package()
    except TableError as error:
        raise AiterNotInstalledError(f"{error.source} {error.message}: give a checkout with --aiter DIR") from error
    return package.parent, version


def _commit(root: Path) -> str | None:
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    if not (root / ".git").exists():
        return None
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def layer_sizes(named: FlydslName, experts: int = EXPERTS) -> dict[str, int]:
    """Return sizes of a small layer for a kernel.

    There are two tiles along each axis.
    """
    tile, step = named.kind.tile_n, named.k_step
    if named.kind.family.stage == "1":
        model_dim, inter_dim = _multiple(named.called.least_model_dim, step), _multiple(LEAST_COLUMNS, tile)
    else:
        model_dim, inter_dim = 2 * tile, _multiple(LEAST_K, step)
    return {"experts": experts, "inter_dim": inter_dim, "model_dim": model_dim, "top_k": TOP_K}


def _multiple(least: int, step: int) -> int:
    return -(-least // step) * step


def _request(
    kernel: str, named: FlydslName, sizes: dict[str, int], options: BuildOptions, root: Path, arch: str
) -> dict[str, Any]:
    builder = named.called.builder
    keywords: dict[str, Any] = {**builder.fixed, **{builder.sizes[name]: size for name, size in sizes.items()}}
    if options.hidden_pad or options.intermediate_pad:
        keywords |= {"model_dim_pad": options.hidden_pad, "inter_dim_pad": options.intermediate_pad}
    if builder.interleave:
        keywords[builder.interleave] = options.gate_mode == "interleave"
    if named.kind.family.stage == "2":
        epilog = builder.fixed.get("epilog", "reduce" if named.reduces else "atomic")
        keywords |= {"accumulate": not named.reduces, "epilog": epilog}
    else:
        keywords |= {"act": options.activation, "enable_bias": options.bias}
    address = "pointer" if named.called.pointers else "address"
    kinds = {**dict.fromkeys(NUMBERS, "integer"), **dict.fromkeys(FLOATS, "float")}
    return {
        "kernel": kernel,
        "root": str(root),
        "arch": arch,
        "names": builder.names,
        "compiles": builder.compiles,
        "renamed": dict(builder.renamed),
        "keywords": keywords,
        "arguments": [kinds.get(name, address) for name in named.called.arguments],
    }


def _run_worker(request: dict[str, Any], folder: Path, arch: str) -> dict[str, Any]:
    environment = os.environ | {
        "COMPILE_ONLY": "1",
        "FLYDSL_DUMP_IR": "1",
        "FLYDSL_DUMP_DIR": str(folder / "dump"),
        "FLYDSL_RUNTIME_CACHE_DIR": str(folder / "cache"),
        "FLYDSL_GPU_ARCH": arch,
    }
    command = [sys.executable, str(WORKER), str(folder)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeriveError(f"{request['kernel']}: not compiled within {TIMEOUT} s") from error
    result = folder / "result.json"
    if not result.is_file():
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DeriveError(f"{request['kernel']}: AITER's FlyDSL did not compile it: {reason[:500]}")
    facts: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return facts
