"""Compiling the Triton kernels for AMD GPUs on a machine that has none; run as a child process, prints JSON.

The child keeps Triton's compile cache and its warnings away from the tests.
"""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

warnings.simplefilter("ignore")

import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from preshuffle.layouts.loader.single import layout_of  # noqa: E402
from preshuffle.layouts.moves.cycles import plan_cycles  # noqa: E402
from preshuffle.layouts.moves.executor_triton import Launch, plan_launch  # noqa: E402
from preshuffle.layouts.moves.half_join import plan_half_join  # noqa: E402
from preshuffle.layouts.moves.kernel_names import kernel_named  # noqa: E402
from preshuffle.layouts.moves.move import move_of  # noqa: E402
from preshuffle.layouts.moves.padded_triton import plan_padded  # noqa: E402
from preshuffle.registry import PlainView, plan_copy  # noqa: E402

TARGETS = {"gfx942": 64, "gfx950": 64, "gfx1250": 32}
ELEMENTS = {1: "*u8", 2: "*i16", 4: "*i32", 8: "*i64"}
MEMORY = re.compile(r"\b((?:global|buffer|flat)_(?:load|store)_\w+)")


def main() -> None:
    for name, launch in {**launches(), **steps()}.items():
        for gfx, wave in TARGETS.items():
            found = sorted(set(MEMORY.findall(compile_for(launch, GPUTarget("hip", gfx, wave)))))
            print(json.dumps({"case": name, "kernel": launch.kernel, "gfx": gfx, "memory": found}))


def launches() -> dict[str, Launch]:
    """What gpt-oss's tensors need: into other storage, and in their own."""
    shapes = {"sep16": (1, 1536), "gui16": (2, 1536), "e8": (1, 96), "e8_gui16": (2, 96)}
    found: dict[str, Launch] = {}
    for name, (halves, k) in shapes.items():
        rows = 6144 // halves
        view = PlainView(4, halves, rows, k, 6144 * k, rows * k, k)
        move = move_of(plan_copy(layout_of(name).bind(4, 6144, k), view).copies[0], "lay out")
        for in_place in (False, True):
            launch = plan_launch(move, in_place=in_place)
            if launch is not None:
                found[f"{name} in place" if in_place else name] = launch
    short = plan_copy(layout_of("e8").bind(4, 6144, 96), PlainView(4, 1, 6144, 90, 6144 * 90, 6144 * 90, 90))
    weight = plan_copy(layout_of("sep16").bind(4, 6144, 1536), PlainView(4, 2, 2880, 1440, 5760 * 1440, 1440, 2880))
    for name, plan in (("e8 of 90 groups", short), ("sep16 with pads", weight)):
        launch = plan_padded(plan, 16, 0)
        assert launch is not None
        found[name] = launch
    return found


def steps() -> dict[str, Launch]:
    """What moves in place beyond a band: along cycles, and halves that are joined."""
    found: dict[str, Launch] = {}
    for name, k in (("gui16", 1536), ("e8_gui16", 96)):
        view = PlainView(4, 2, 3072, k, 6144 * k, 3072 * k, k)
        move = move_of(plan_copy(layout_of(name).bind(4, 6144, k), view).copies[0], "lay out")
        cycles, joined = plan_cycles(move), plan_half_join(move)
        if cycles is not None:
            arguments = (len(cycles.cycles), *cycles.arguments)
            found[f"{name} along cycles"] = Launch(
                "permute_cycles", 1, arguments, dict(cycles.constants), cycles.warps, 4, 0, 0, 4
            )
        if joined is not None:
            found[f"{name} joined"] = Launch("join_halves", 1, joined.arguments, joined.constants, 16, 4, 0, 0, 4)
    return found


def compile_for(launch: Launch, target: GPUTarget) -> str:
    """Return the assembly, with the arguments specialised as a launch would do it (1, and multiples of 16)."""
    kernel: Any = kernel_named(launch.kernel)
    names = kernel.arg_names
    buffers = names[: len(names) - len(launch.arguments) - len(launch.constants)]
    values = dict(zip(names[len(buffers) :], launch.arguments, strict=False))
    constants = {**launch.constants, **{name: 1 for name, value in values.items() if value == 1}}
    signature = {name: "constexpr" if name in constants else "i32" for name in names}
    signature |= dict(zip(buffers, (ELEMENTS[launch.source_element], *(ELEMENTS[launch.element],) * 9), strict=False))
    multiples = [name for name in names if name not in constants and values.get(name, 16) % 16 == 0]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in multiples},
    )
    compiled = triton.compile(source, target=target, options={"num_warps": launch.warps})
    return str(compiled.asm["amdgcn"])


if __name__ == "__main__":
    main()
