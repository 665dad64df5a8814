"""Plan of a dispatch rule: functions and kernels, before layouts are known."""

from typing import NamedTuple


class Plan(NamedTuple):
    """The functions and kernels that AITER binds.

    Attributes:
        func1: Function of stage 1 (or of both).
        kernel1: Its kernel name.
        func2: Function of stage 2; None for a 1-stage kernel.
        kernel2: Its kernel name.
        block_m: Rows per block of the token sort.
        ksplit: K split.
        run_1stage: One kernel does both stages.
        split_k: CK-Tile's own split: 1 uses the gate/up epilogue, more splits write partial sums.
        post_activation_layout: How CK-Tile's split-k epilogue reads gate and up: ``standard`` or ``auto``.
        output_aux: The token sort emits what the mxmoe port needs (it knows no expert mask).
    """

    func1: str
    kernel1: str
    func2: str | None
    kernel2: str
    block_m: int
    ksplit: int
    run_1stage: bool = False
    split_k: int = 0
    post_activation_layout: str = ""
    output_aux: bool = False
