"""One fused-MoE call as AITER sees it."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.base.words import Activation, CallDtype, CallQuantType, GateMode

Units = Annotated[int, Field(gt=0, le=4096)]
# Twice what a query may say: padding, and the extra slot of expert parallelism, come on top.
Size = Annotated[int, Field(gt=0, le=1 << 21)]
RawPad = Annotated[int, Field(ge=0, le=1 << 21)]


class DispatchCall(Frozen):
    """Arguments of AITER's ``fused_moe`` that decide the kernel.

    Sizes are those of the tensors that one rank passes: ``inter_dim`` per rank, both dimensions with their padding,
    ``expert`` the experts held locally. With ``ep`` (an ``expert_mask`` is passed) ``topk`` counts the extra slot that
    is always masked, as AITER's callers pass it.

    Attributes:
        gfx: Architecture, e.g. ``gfx950``.
        cu_num: Compute units that the runtime reports.
        tokens: Rows of ``topk_ids``, before AITER pads the count.
        dtype: Output (and hidden state) dtype.
        weight_dtype: dtype of w1; ``uint8`` is fp4 that is not typed as fp4, ``uint32`` is packed int4.
        is_shuffled: The attribute on w1 and w2 that AITER's shuffle functions set.
        flydsl: Whether the FlyDSL package can be imported and knows the architecture.
        quant_dtype_a: Activation dtype that the caller names; None where AITER derives it.
        bias: Whether fp32 ``bias1`` and ``bias2`` are passed.
        env: Environment variables that are set for AITER.
        aiter: AITER's version; None is the newest known.

    Example:
        >>> DispatchCall(gfx="gfx950", cu_num=256, tokens=1, model_dim=3072, inter_dim=3072, expert=128, topk=4,
        ...              activation="Swiglu", weight_dtype="fp4x2", quant_type="per_1x32").gate_mode
        'separated'
    """

    gfx: Annotated[str, Field(pattern=r"^gfx[0-9a-f]{3,5}$")]
    cu_num: Units
    tokens: Annotated[int, Field(ge=0, le=1 << 31)]
    model_dim: Size
    inter_dim: Size
    expert: Size
    topk: Size
    activation: Activation
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    weight_dtype: CallDtype
    quant_type: CallQuantType
    use_g1u1: bool = True
    doweight_stage1: bool = False
    gate_mode: GateMode = "separated"
    is_shuffled: bool = True
    flydsl: bool = True
    ep: bool = False
    bias: bool = False
    hidden_pad: RawPad = 0
    intermediate_pad: RawPad = 0
    quant_dtype_a: CallDtype | None = None
    env: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    aiter: str | None = None

    @field_validator("aiter")
    @classmethod
    def _version(cls, value: str | None) -> str | None:
        if value is not None:
            version_key(value)
        return value
