"""Kill processes that lay out memory-mapped files, at random moments; print what each left behind, one JSON line each.

``python -m support.tensors.kill_layouts FOLDER ROUNDS SEED``. Every round puts a small layer into
files, forks a process that works on them, kills it, and looks at the files as the next process would: mapped afresh,
knowing nothing but what lies there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from preshuffle.layouts import apply, apply_layout, begin_reload, finish_reload, inverse, stamp_of, write_expert
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, in_padded_buffers, plain_tensors

Tensors = dict[str, torch.Tensor]
DECISION = decide("bf16", hidden_size=512, intermediate_size=1024, num_experts=8)


@dataclass(frozen=True)
class Work:
    """What is interrupted: on which bytes it begins, which ones it makes, and which may lie there without a stamp."""

    name: str
    before: str
    after: str
    run: Callable[[Tensors], object]
    unstamped: tuple[str, ...] = ("plain",)


def main() -> None:
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)  # what a forked process may go on with
    live = plain_tensors(DECISION)
    for role in ("w13_bias", "w2_bias"):
        live[role] = live[role].float()
    plain = in_padded_buffers(live, DECISION)
    fresh = live["w13_weight"][0].flip(0)
    other = plain["w13_weight"].flip(1)
    works = (
        Work("apply", "plain", "laid", lambda tensors: apply(tensors, DECISION)),
        Work("inverse", "laid", "plain", inverse),
        Work("write", "laid", "new", lambda tensors: write_expert(tensors, 3, "w13_weight", fresh)),
        Work("out", "plain", "one", lambda tensors: into_out(other, tensors["w13_weight"]), ("plain", "one")),
    )
    states = {"plain": plain}
    fill(folder / "plain", plain)
    for work in (works[0], works[2], works[3]):
        shutil.copytree(folder / work.before, folder / work.after)
        work.run(mapped(folder / work.after, plain))
        states[work.after] = {role: tensor.clone() for role, tensor in mapped(folder / work.after, plain).items()}
    moments = random.Random(seed)
    for work in works:
        whole = max(duration(folder, work, plain) for _ in range(3))
        for _ in range(rounds):
            fork_and_kill(folder, work, plain, moments.uniform(0, whole))
            found = look(mapped(folder / "now", plain), work, states)
            print(json.dumps({"work": work.name, **found}), flush=True)


def into_out(plain: torch.Tensor, out: torch.Tensor) -> None:
    """Write one tensor that has no decision into a mapped file, several times: it is soon done."""
    for _ in range(4):
        apply_layout(plain, "gui16", out=out)


def fill(folder: Path, tensors: Tensors) -> None:
    folder.mkdir()
    for role, tensor in tensors.items():
        (folder / role).write_bytes(tensor.view(torch.uint8).numpy().tobytes())


def mapped(folder: Path, like: Tensors) -> Tensors:
    """Map files as a process that has just begun does."""
    return {
        role: torch.from_file(str(folder / role), shared=True, size=tensor.numel(), dtype=tensor.dtype).view(
            tensor.shape
        )
        for role, tensor in like.items()
    }


def put(folder: Path, state: str) -> None:
    shutil.rmtree(folder / "now", ignore_errors=True)
    shutil.copytree(folder / state, folder / "now")


def duration(folder: Path, work: Work, like: Tensors) -> float:
    put(folder, work.before)
    begin = time.perf_counter()
    work.run(mapped(folder / "now", like))
    return time.perf_counter() - begin


def fork_and_kill(folder: Path, work: Work, like: Tensors, moment: float) -> None:
    put(folder, work.before)
    tensors = mapped(folder / "now", like)
    child = os.fork()
    if not child:
        work.run(tensors)
        os._exit(0)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def look(tensors: Tensors, work: Work, states: dict[str, Tensors]) -> dict[str, object]:
    """Say what the files' records claim, whose bytes are not what is claimed, and whether a reload mends them."""
    stamps = {role: stamp_of(tensor) for role, tensor in tensors.items()}
    claims = {role: stamp.state if stamp else "plain" for role, stamp in stamps.items()}
    allowed = {
        "plain": list(work.unstamped),
        "applied": [name for name in (work.before, work.after) if name != "plain"],
    }
    lies = [
        role
        for role, claim in claims.items()
        if claim != "broken" and not any(same(tensors[role], states[name][role]) for name in allowed[claim])
    ]
    return {"claims": sorted(set(claims.values())), "lies": lies, "mended": mend(tensors, claims, states)}


def mend(tensors: Tensors, claims: dict[str, str], states: dict[str, Tensors]) -> bool | None:
    """Load a layer again that is neither plain nor laid out as a whole; None where it is."""
    if set(claims.values()) in ({"plain"}, {"applied"}):
        return None
    try:
        apply(tensors, DECISION)
        return False
    except LayoutError as error:
        if "partly laid out" not in str(error) and "laid out already" not in str(error):
            raise
    begin_reload(tensors)
    for role, tensor in tensors.items():
        tensor.copy_(states["plain"][role])
    finish_reload(tensors, DECISION)
    return all(same(tensors[role], states["laid"][role]) for role in tensors)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.view(torch.uint8).flatten().equal(other.view(torch.uint8).flatten())


if __name__ == "__main__":
    main()
