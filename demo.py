"""Demo: lay out a gpt-oss checkpoint, prove it, report it.

A checkpoint goes in; laid-out bytes, a decision, a proof and a page come out, and the files that README.md uses.

Run it with ``make demo``; ``make demo ARGS=--no-serve`` stops after the proof.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from preshuffle.api.commands.screens.table import Column, render
from preshuffle.api.errors import ServeError
from preshuffle.layouts import Check, Checkpoint, apply, observe_layer, prove, write_checkpoint
from preshuffle.registry import Decision, Observation, PreshuffleError, Query, Registry

FOLDER = Path(".demo")
CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "torch_dtype": "bfloat16",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 4,
    "swiglu_limit": 7.0,
    "quantization_config": {"quant_method": "mxfp4"},
}
ACTIVATION_DTYPES = ("fp4x2", "bf16")
TUNED_ROW: dict[str, Any] = {
    "gfx": "gfx950", "cu_num": 256, "token": 512, "model_dim": 3072, "inter_dim": 3072, "expert": 128, "topk": 4,
    "act_type": "ActivationType.Swiglu", "dtype": "torch.bfloat16", "q_dtype_a": "torch.float4_e2m1fn_x2",
    "q_dtype_w": "torch.float4_e2m1fn_x2", "q_type": "QuantType.per_1x32", "use_g1u1": 1, "doweight_stage1": 0,
    "block_m": 32, "ksplit": 0, "us1": 1.0, "kernelName1": "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w2", "err1": "0.0%",
    "us2": 1.0, "kernelName2": "flydsl_moe2_afp4_wfp4_bf16_t32x128x256_atomic_bnt2", "err2": "0.0%", "us": 2.0,
    "run_1stage": 0, "xbf16": 0, "flat": 0, "tflops": 1, "bw": 1, "_tag": "",
}  # fmt: skip
"""A made-up row of AITER's ``tuned_fmoe.csv``, so that a tuned kernel can be seen without AITER's tables."""


def main() -> int:
    """Run the demo; exit with 0 if everything is proven."""
    options = _options()
    folder = Path(options.folder)
    if not options.no_serve:
        _check_port(options.host, options.port)
    registry = Registry.default()
    _print(f"1. A checkpoint of gpt-oss's own structure in {folder}/checkpoint")
    checkpoint = write_checkpoint(folder / "checkpoint", CONFIG)
    for path in sorted((folder / "checkpoint").iterdir()):
        _print(f"   {path.name:<40} {path.stat().st_size / 1e6:8.1f} MB")
    proven = True
    observations: dict[str, Observation] = {}
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for number, dtype in enumerate(ACTIVATION_DTYPES, start=2):
        query = registry.query_from_hf_config(checkpoint.folder, arch="gfx950", activation_dtype=dtype)
        decision = registry.resolve(query)
        _print(f"\n{number}. {query.model} on {query.arch}, activations {dtype}: {decision.recipe}")
        _print(_chosen(decision))
        checks, observation, seconds, tensors[dtype] = _apply(checkpoint, query, decision)
        _print(_proofs(checks, seconds))
        proven &= all(check.ok for check in checks)
        observations[dtype] = observation
    first = ACTIVATION_DTYPES[0]
    _print(f"\n{len(ACTIVATION_DTYPES) + 2}. Files to go on with")
    for path, what in _write_files(folder, observations[first], tensors[first]):
        _print(f"   {path!s:<30} {what}")
    _print("\nEverything is proven." if proven else "\nNOT PROVEN: see above.")
    if not proven or options.no_serve:
        return 0 if proven else 1
    return _serve(folder, options.host, options.port, observations)


def _write_files(
    folder: Path, observation: Observation, tensors: dict[str, torch.Tensor]
) -> Iterator[tuple[Path, str]]:
    """Write what a deployment would leave: its observation and report, a dump of its last layer, kernel tables."""
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    texts = {
        folder / "observation.json": (json.dumps(_as_json(observation), indent=2), "what was done: preshuffle check"),
        folder / "report.json": (json.dumps(_report(observation), indent=2), "the same, as a replica sends it"),
        tables / "tuned_fmoe.csv": (_csv(TUNED_ROW), "one made-up row of tuned kernels: --tables"),
    }
    for path, (text, what) in texts.items():
        path.write_text(text + "\n", encoding="utf-8")
        yield path, what
    dump = folder / "dump.safetensors"
    save_file(tensors, dump)
    yield dump, f"the bytes of layer {CONFIG['num_hidden_layers'] - 1}: preshuffle identify"


def _as_json(observation: Observation) -> dict[str, Any]:
    """Return an observation with the fields that it states."""
    value: dict[str, Any] = observation.model_dump(mode="json", exclude_none=True)
    return value


def _report(observation: Observation) -> dict[str, Any]:
    """Return the report of a replica, all of whose layers are alike."""
    layers = f"0-{CONFIG['num_hidden_layers'] - 1}"
    return {"groups": [{"layers": layers, "observation": _as_json(observation)}], "node": "demo"}


def _csv(row: dict[str, Any]) -> str:
    return f"{','.join(row)}\n{','.join(map(str, row.values()))}"


def _apply(
    checkpoint: Checkpoint, query: Query, decision: Decision
) -> tuple[list[Check], Observation, float, dict[str, torch.Tensor]]:
    """Lay out every layer and prove each; return the observation and the last layer's tensors."""
    tensors: dict[str, torch.Tensor] = {}
    checks: list[Check] = []
    seconds = 0.0
    for layer in range(checkpoint.layers):
        plain = checkpoint.rank(layer, query)
        tensors = dict(plain)
        begin = time.perf_counter()
        apply(tensors, decision)
        seconds += time.perf_counter() - begin
        proofs = prove(plain, tensors, decision)
        checks += [Check(f"layer {layer}: {check.name}", check.ok, check.detail) for check in proofs]
    env = {**query.env, **decision.env}  # set as the decision asks for it
    running = Query.parse({**query.model_dump(exclude_unset=True), "env": env})
    # no engine runs here: the call is the decided one, as an engine would pass it
    applied = observe_layer(tensors, call=decision.call.kwargs("aiter.fused_moe"))
    return checks, Observation(query=running, applied=applied), seconds, tensors


def _chosen(decision: Decision) -> str:
    titles = ("tensor", "layout", "plain", "laid out", "pad rows, K", "fill", "dtype")
    rows = []
    for role, tensor in decision.tensors.items():
        plain, laid = ("x".join(map(str, shape)) for shape in (tensor.logical_shape, tensor.physical_shape))
        pad = f"{tensor.pad.rows}, {tensor.pad.k}"
        rows.append((role, tensor.layout, plain, laid, pad, f"0x{tensor.fill:02x}", tensor.dtype))
    switches = [("environment", " ".join(f"{name}={value}" for name, value in decision.env.items()))]
    reasons = [
        ("why", decision.reason),
        *(switches if decision.env else ()),
        *((f"not {other.recipe}", other.why_not) for other in decision.alternatives),
    ]
    return f"{_table(['', ''], reasons)}\n{_table(titles, rows)}"


def _proofs(checks: list[Check], seconds: float) -> str:
    rows = [(check.name, "ok" if check.ok else "FAILED", check.detail) for check in checks]
    return f"   applied in {seconds:.2f} s\n{_table(('proof', '', ''), rows)}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = [Column(title, wraps=index == len(titles) - 1) for index, title in enumerate(titles)]
    return render(columns, rows, shutil.get_terminal_size((120, 24)).columns, indent=3)


def _serve(folder: Path, host: str, port: int, observations: dict[str, Observation]) -> int:
    """Start the service, report the deployments, and wait.

    The reports are those that an engine would send.
    """
    url = f"http://{host}:{port}"
    database = (folder / "preshuffle.db").absolute()
    command = [sys.executable, "-m", "preshuffle.api.cli", "serve", "--host", host, "--port", str(port)]
    server = subprocess.Popen([*command, "--db", f"sqlite:///{database}"])
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        if not _wait(url, server):
            return server.wait() or 1
        for dtype, observation in observations.items():
            name = f"gpt-oss-demo-{dtype}"
            body = _report(observation)
            request = urllib.request.Request(
                f"{url}/v1/deployments/{name}",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
                method="PUT",
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                _print(f"   reported {name}: {answer.status}")
        _print(f"\nOpen {url}/ (API: {url}/docs). Ctrl-C stops it.")
        return server.wait()
    except KeyboardInterrupt:
        server.send_signal(signal.SIGINT)
        server.wait()
        return 0
    finally:
        if server.poll() is None:
            server.terminate()


def _check_port(host: str, port: int) -> None:
    """Raise an error if the port is taken, before the work."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(f"{host}:{port} cannot be used ({error.strerror}); try ARGS='--port 8081'") from None


def _wait(url: str, server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return server.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-serve", action="store_true", help="stop after the proof")
    parser.add_argument("--folder", default=str(FOLDER), help="where the checkpoint and the database go")
    parser.add_argument("--host", default=os.environ.get("PRESHUFFLE_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PRESHUFFLE_PORT", "8080")))
    return parser.parse_args()


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PreshuffleError as error:
        sys.exit(f"demo: {error}")
