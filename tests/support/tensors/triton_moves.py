"""Every move of every layout on the Triton executor, against torch's own copies; run as a child process.

And fingerprints by the kernel, against torch's operations.

On a machine without a GPU the parent sets TRITON_INTERPRET=1, which counts only before Triton is imported. Prints one
JSON line per move.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import torch

from preshuffle.layouts.loader.single import layout_of
from preshuffle.layouts.moves import executor_torch, executor_triton
from preshuffle.layouts.moves.execute import fill_box
from preshuffle.layouts.moves.half_join import plan_half_join
from preshuffle.layouts.moves.move import Direction, Move, alignment_of, move_of
from preshuffle.layouts.moves.padded_triton import plan_padded, run_padded
from preshuffle.layouts.stamps import digests
from preshuffle.layouts.stamps.gpu_sums import sum_parts
from preshuffle.registry import LayoutError, PlainView, Registry, plan_copy
from preshuffle.registry.algebra.copy_plan import CopyPlan

FILL = 200
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# (experts, live rows per half, live K, padded rows per half, padded K)
SHAPES = ((2, 64, 192, 64, 192), (2, 40, 90, 64, 128))
# of which 16 bytes of K are live or a pad together, and one expert, since whole tiles are moved
WIDE = (1, 24, 96, 32, 128)
SPANS = (8, 520, 1 << 16, 1 << 18, (1 << 20) + 8, (1 << 20) + 5, 3 << 20, 520, 8)


def main() -> None:
    torch.manual_seed(0)
    for name in Registry.default().book.layouts:
        for shape, alternating in zip(SHAPES, (False, True), strict=True):
            for direction in ("lay out", "take back"):
                for line in compare(name, shape, alternating, direction):
                    print(json.dumps(line))
        for shape, alternating in ((SHAPES[1], True), (WIDE, False)):
            for line in compare_padded(name, shape, alternating):
                print(json.dumps(line))
    for line in compare_sums():
        print(json.dumps(line))
    sys.stdout.flush()


def plan_for(name: str, shape: tuple[int, int, int, int, int], alternating: bool) -> CopyPlan:
    layout = layout_of(name)
    experts, rows, k, padded_rows, padded_k = shape
    halves = 2 if layout.pattern.splits_gate_up or alternating else 1
    half, step = (k, halves * k) if alternating else (rows * k, k)
    view = PlainView(experts, halves, rows, k, halves * rows * k, half, step)
    return plan_copy(layout.bind(experts, halves * padded_rows, padded_k), view)


def in_place(move: Move, source: torch.Tensor, wanted: torch.Tensor) -> bool | None:
    """Whether the move in place is right, without scratch and with what it wants; None where there is none."""
    joined = plan_half_join(move)
    sizes = [0] if joined is None else [0, joined.half * 4, 2 * joined.half * 4]  # one program, and two
    found: list[bool] = []
    for size in sizes:
        buffer = source.clone()
        if executor_triton.run_in_place(move, buffer, torch.empty(size, dtype=torch.uint8, device=DEVICE)):
            found.append(buffer.equal(wanted))
    return all(found) if found else None


def shifted(move: Move, source: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether buffers that begin one unit behind a multiple of 16 are moved right."""
    source = torch.cat([source[: move.unit], source])[move.unit :]
    wanted, found = (torch.cat([target[: move.unit], target])[move.unit :] for _ in range(2))
    executor_torch.run_move(move, source, wanted)
    executor_triton.run_move(move, source, found)
    return found.equal(wanted)


def compare(
    name: str, shape: tuple[int, int, int, int, int], alternating: bool, direction: Direction
) -> Iterator[dict[str, object]]:
    plan = plan_for(name, shape, alternating)
    live = torch.randint(0, 256, (plan.copied,), dtype=torch.uint8, device=DEVICE)
    laid = torch.randint(0, 256, (plan.nbytes,), dtype=torch.uint8, device=DEVICE)
    source, target = (live, laid) if direction == "lay out" else (laid, live)
    for box in plan.copies:
        move: Move = move_of(box, direction, alignment_of(source, target))
        wanted, found = target.clone(), target.clone()
        executor_torch.run_move(move, source, wanted)
        launch = executor_triton.plan_launch(move)
        executor_triton.run_move(move, source, found)
        line = {"layout": name, "shape": shape, "alternating": alternating, "direction": direction, "unit": move.unit}
        line["shifted"] = shifted(move, source, target)
        line |= {"kernel": launch.kernel if launch else None, "equal": found.equal(wanted), "in_place": None}
        if direction == "lay out" and not plan.fills and len(plan.copies) == 1:
            line["in_place"] = in_place(move, source, wanted)
        yield line


def compare_padded(name: str, shape: tuple[int, int, int, int, int], alternating: bool) -> Iterator[dict[str, object]]:
    """The whole plan in one launch, pads included, where there is one."""
    try:
        plan = plan_for(name, shape, alternating)
    except LayoutError:  # the layout's tiles are larger
        return
    live = torch.randint(0, 256, (plan.copied,), dtype=torch.uint8, device=DEVICE)
    wanted, found = (torch.randint(0, 256, (plan.nbytes,), dtype=torch.uint8, device=DEVICE) for _ in range(2))
    for box in plan.copies:
        executor_torch.run_move(move_of(box, "lay out", alignment_of(live, wanted)), live, wanted)
    for box in plan.fills:
        fill_box(box, wanted, FILL)
    launch = plan_padded(plan, alignment_of(live, found), FILL)
    if launch is not None and run_padded(plan, live, found, FILL):
        yield {
            "layout": name, "shape": shape, "alternating": alternating, "direction": "lay out", "padded": True,
            "kernel": launch.kernel, "constants": launch.constants, "equal": found.equal(wanted), "in_place": None,
        }  # fmt: skip


def compare_sums() -> Iterator[dict[str, object]]:
    """Fingerprints of more spans than one launch takes."""
    digests._CPU_SAMPLES = digests._GPU_SAMPLES  # torch's operations on a CPU read as many words
    spans = [torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device=DEVICE) for nbytes in SPANS]
    found = sum_parts(spans[0].device, [(span.data_ptr(), span.numel()) for span in spans])
    for span, sums in zip(spans, found, strict=True):
        wanted = digests._sums(digests._words(span.untyped_storage(), 0, span.numel()))
        yield {"span": span.numel(), "equal": sums.equal(wanted)}


if __name__ == "__main__":
    main()
