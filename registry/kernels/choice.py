"""Kernel choice: what AITER's dispatch decides for one call."""

from pydantic import Field

from preshuffle.registry.base.frozen import Frozen, FrozenDict


class Stage(Frozen):
    """One stage of a fused-MoE call.

    Attributes:
        func: AITER's Python function that is bound.
        kernel: Kernel name; ``""`` where C++ picks the kernel.
        family: Id in ``book/kernel_families.yaml``; None where no known family answers.
        reads: Layout id by role, for the roles whose layout is known.
        known: How that is known, by role: ``derived`` from a kernel, equal to the ``bytes`` that AITER's functions
            feed it, read in ``source``, or an ``engine``'s choice. No role where the book does not say.
        evidence: Id in the book's ``kernel_evidence``, by role.
    """

    func: str
    kernel: str
    family: str | None
    reads: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    known: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    evidence: FrozenDict[str, str] = Field(default_factory=FrozenDict)


class KernelChoice(Frozen):
    """The outcome of AITER's dispatch for one call.

    Attributes:
        activation_dtype: dtype that the activations are quantized to, in AITER's spelling; None if that is not known.
        padded_tokens: Token count that AITER looks up.
        stage1: First stage; for a 1-stage kernel it reads all four roles. None where AITER raises.
        stage2: Second stage; None for a 1-stage kernel and where AITER raises.
        block_m: Rows per block of the token sort.
        ksplit: K split that goes with the choice (-1: the kernel's own).
        run_1stage: Whether one kernel does both stages.
        tuned: A table row was found and used; None where no table was given, and in a decision where nothing runs.
        source: ``file:line`` of the row found (``notes`` says so where it was not used).
        error: ``<ExceptionType>: …`` that AITER raises before a launch.
        notes: What the answer must say about itself.
    """

    activation_dtype: str | None
    padded_tokens: int
    stage1: Stage | None = None
    stage2: Stage | None = None
    block_m: int | None = None
    ksplit: int | None = None
    run_1stage: bool = False
    tuned: bool | None = None
    source: str | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
