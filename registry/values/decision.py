"""Decision: the answer to a query, with reasons and rejected alternatives."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.words import (
    BITS,
    CallBackend,
    Dtype,
    GateMode,
    ModelActivation,
    QuantType,
    Role,
    RowOrder,
    Step,
    TensorDtype,
)
from preshuffle.registry.kernels import CallField, KernelChoice, SignatureTable, packaged_signatures
from preshuffle.registry.values.finding import Finding

ReasonKind = Literal["exact", "engine", "general", "switch", "overlay"]
"""Closed set of reasons for a decision, for programs that count them; the sentence beside it says more."""


class Pad(Frozen):
    """Padding of a tensor: physical minus logical size, in its own count.

    For w13 in rows of each half.

    Of a buffer that is padded at its flattened tail, ``rows`` is per half without the tail.
    """

    rows: Annotated[int, Field(ge=0)] = 0
    k: Annotated[int, Field(ge=0)] = 0


class TailFill(Frozen):
    """Second byte of a pad along K, behind the engine's own pad.

    Attributes:
        first_k: where it begins, in the tensor's own count.
        fill: the byte, which AITER's function writes there.
    """

    first_k: Annotated[int, Field(ge=1)]
    fill: Annotated[int, Field(ge=0, le=255)]


class TensorDecision(Frozen):
    """How one tensor of one rank must lie.

    Shapes are ``[experts, rows, K]`` in values (a scale's K in groups, its rows in blocks where a block shares one); a
    bias is ``[experts, rows]``, a scale per tensor ``[experts]``.

    Attributes:
        layout_line: what the layout is (``Layout.line``), where that is an overlay's word and not the packaged book's.
        logical_shape: of tensor-parallel rank 0, before padding.
        short_shape: of the last rank, where it gets less; its pads are larger by the difference.
        physical_shape: after padding; the same on every rank; ``[experts * rows, K]`` where the tail is padded.
        passed_shape: of the tensor that the kernel gets, where it is another one over the same bytes: an MX scale is
            passed as ``[experts * rows, K]``, on gfx1250 as ``[experts, rows / 32, 32 * K]``.
        fill: the byte in the pads.
        tail: the part of K's pad that holds another byte; None where all pads hold the same.
        steps: what is done to the values on this GPU, in order.
        source_order: the row order of the checkpoint; None for tensors without gate and up.
        order: the row order in which the rows are laid out.
        rank0_only: ranks other than tensor-parallel rank 0 hold zeros.
        is_shuffled: whether AITER's tag must be on the object that the kernel gets.
        default: the number in every place of a scale that the checkpoint may leave out, because the engine makes it;
            only the scale that is folded into it must be there. None where the checkpoint has it.
    """

    layout: str
    layout_line: str | None = None
    logical_shape: tuple[int, ...]
    physical_shape: tuple[int, ...]
    passed_shape: tuple[int, ...] | None = None
    pad: Pad
    fill: int
    tail: TailFill | None = None
    dtype: TensorDtype
    steps: tuple[Step, ...] = ()
    short_shape: tuple[int, ...] | None = None
    source_order: RowOrder | None = None
    order: RowOrder | None = None
    rank0_only: bool = False
    is_shuffled: bool = False
    default: float | None = None

    @property
    def laid_bits(self) -> int:
        """Bits of one value in the laid-out tensor, before int4 packing."""
        return BITS["i8"] if "pack_int4" in self.steps else BITS[self.dtype]


class CallDecision(Frozen):
    """Kernel call that must go with the bytes.

    Pads are what to pass, in values.

    Attributes:
        gate_mode: what the bytes need.
        gate_mode_passed: false where the engine leaves AITER's default, which is separated.
        bias: whether biases are passed.
        function: the entry point.
        backend: whose kernels run behind it.
        quant_dtype_a: the activation dtype, where it is named and AITER does not choose.
        expert_map: what the kernels take under expert parallelism: a 0/1 mask, or indices of the local experts; None
            where none is passed, or the kind is not known.
        swizzle_mx_scale: the label of Triton's scale swizzle.
        swiglu_limit: the clamp that is passed; None where none is.
        doweight_stage1: whether the kernel multiplies the router's weights in stage 1, on the input, not in stage 2.
        weighted_by_caller: whether the engine multiplies them into the input itself, and passes ones to the kernel.
    """

    gate_mode: GateMode
    gate_mode_passed: bool = True
    quant_type: QuantType
    activation: ModelActivation
    hidden_pad: int
    intermediate_pad: int
    bias: bool
    function: str = "fused_moe"
    backend: CallBackend = "aiter"
    quant_dtype_a: Dtype | None = None
    expert_map: Literal["mask", "index"] | None = None
    swizzle_mx_scale: str | None = None
    swiglu_limit: float | None = None
    swiglu_alpha: float | None = None
    situ_beta: float | None = None
    situ_linear_beta: float | None = None
    doweight_stage1: bool = False
    weighted_by_caller: bool = False

    def kwargs(
        self,
        function: str = "aiter.fused_moe",
        *,
        aiter: str | None = None,
        version: str | None = None,
        parameters: Collection[str] | None = None,
        signatures: SignatureTable | None = None,
    ) -> dict[str, Any]:
        """Return what to pass to a function beside tensors and tokens.

        Enumerators have AITER's names and numbers, dtypes the registry's names (``layouts.call_arguments`` gives those
        of AITER and torch, and the tensors).

        Args:
            function: a signature of the book: ``aiter.fused_moe``, ``vllm.fused_moe``, ….
            aiter: AITER's version; None for the newest known.
            version: the engine's, where the function is an engine's; None for the newest known.
            parameters: names that the function at hand takes (``inspect.signature``); they count before its version.
            signatures: of another book than the packaged one (``Registry.book.signatures``).

        Raises:
            LayoutError: the function runs something else, or this release has no argument for what the call needs.

        Example:
            >>> from preshuffle.registry import Query, Registry
            >>> query = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2)
            >>> kwargs = Registry.default().resolve(query).call.kwargs("aiter.fused_moe", aiter="0.1.20")
            >>> kwargs["gate_mode"], kwargs["quant_type"].name, kwargs["hidden_pad"], kwargs["intermediate_pad"]
            ('separated', 'per_1x32', 192, 96)
        """
        fields = {name: getattr(self, name) for name in (*get_args(CallField), "function")}
        if not self.gate_mode_passed:
            fields["gate_mode"] = None
        table = signatures or packaged_signatures()
        return table.arguments_of(function, fields, version=version, aiter=aiter, parameters=parameters)


class KernelBucket(KernelChoice):
    """The kernel that AITER picks at one token count."""

    tokens: int


class ObservedRead(Frozen):
    """Layout that a kernel reads a tensor in, with its evidence.

    Attributes:
        role: the tensor.
        layout: how the kernel reads it.
        known: ``derived`` from the kernel, the ``bytes`` that AITER's functions feed it, read in ``source``, or an
            ``engine``'s choice; None where the book does not say.
        evidence: id in the book's ``kernel_evidence``.
    """

    role: str
    layout: str
    known: str | None = None
    evidence: str | None = None


class Alternative(Frozen):
    """A recipe that was not chosen, and why."""

    recipe: str
    why_not: str


class Decision(Frozen):
    """Answer to a query: layouts, call, kernels and reasons.

    Attributes:
        recipe: id of the recipe that was chosen.
        rule: id of the rule that chose it.
        reason: why that rule won, in a sentence.
        reason_kind: the same as data: the rule comes from an ``overlay``; else it tests a ``switch`` that the query
            sets; else it names the model (``exact``); else an ``engine``; else it is ``general``.
        tensors: how each tensor of one rank must lie, by role.
        call: the call that goes with these bytes.
        env: environment that the recipe needs, which decides nothing else.
        kernels: the kernel that AITER picks at each token count of the query.
        reads: what a backend with kernels of its own reads of these layouts, and how that is known; nothing for
            AITER's, which say it themselves.
        alternatives: recipes for the same subject that were not chosen.
        findings: what is wrong although a recipe was found.
        registry_digest: of the book that decided.
        decision_digest: of recipe, tensors, call and env: of nothing that leaves bytes and call as they are.
    """

    recipe: str
    rule: str
    reason: str
    reason_kind: ReasonKind
    tensors: FrozenDict[Role, TensorDecision]
    call: CallDecision
    env: FrozenDict[str, str]
    kernels: tuple[KernelBucket, ...]
    reads: tuple[ObservedRead, ...] = ()
    alternatives: tuple[Alternative, ...]
    findings: tuple[Finding, ...]
    registry_digest: str
    decision_digest: str
