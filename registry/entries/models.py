"""Entries of section ``models``: sizes and quantization of one model."""

from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, Size
from preshuffle.registry.base.globs import Glob
from preshuffle.registry.base.words import Dtype, ModelActivation, QuantType, RowOrder
from preshuffle.registry.entries.platform import Evidence


class ModelFacts(Frozen):
    """What a model's entry, or its configuration, can say for a query."""

    weight_dtype: Dtype | None = None
    quant_type: QuantType | None = None
    activation: ModelActivation | None = None
    activation_dtype: Dtype | None = None
    gate_up_order: RowOrder | None = None
    producer: str | None = None
    hidden_size: Size | None = None
    intermediate_size: Size | None = None
    num_experts: Size | None = None
    top_k: Size | None = None
    gated: bool | None = None
    bias: bool | None = None
    router_weight_on_input: bool | None = None
    swiglu_limit: float | None = None

    @cached_property
    def _stated(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, include=set(ModelFacts.model_fields))

    def given(self) -> dict[str, Any]:
        """Return the facts that are stated."""
        return dict(self._stated)


class ModelEntry(ModelFacts):
    """Model: Hugging Face id, aliases, and facts that queries may omit.

    Attributes:
        router_weight_on_input: only said of models whose router weights multiply what goes into an expert.
        swiglu_alpha: gain of Swiglu's sigmoid.
        situ_beta: SiTU's bound of the gate.
        situ_linear_beta: SiTU's bound of the up part.
        model_type: the Hugging Face model type of its language model.
        shared_experts: how many shared experts each layer has, which an engine may run as experts of the layer (they
            then count in ``num_experts`` and ``top_k``).
        shared_weight_dtype: their dtype, where they are quantized otherwise than the routed experts.
        shared_intermediate_size: the size of one of them, where it is another than a routed expert's.
        tp_seen: tensor-parallel sizes that people run it with.
        ep_seen: expert-parallel sizes that people run it with.
        note: what else an operator should know.
        unverified: fields whose values rest on general knowledge, not on the checkpoint's own files.
    """

    id: str
    aliases: tuple[Glob, ...] = ()
    swiglu_alpha: float | None = None
    situ_beta: float | None = None
    situ_linear_beta: float | None = None
    model_type: str | None = None
    shared_experts: Annotated[int, Field(ge=0, le=64)] = 0
    shared_weight_dtype: Dtype | None = None
    shared_intermediate_size: Size | None = None
    tp_seen: tuple[Size, ...] = ()
    ep_seen: tuple[Size, ...] = ()
    note: str = ""
    unverified: tuple[str, ...] = ()
    evidence: Evidence = ()

    @model_validator(mode="after")
    def _unverified_are_fields(self) -> Self:
        for index, name in enumerate(self.unverified):
            if name not in ModelEntry.model_fields:
                valid = ", ".join(field for field in ModelEntry.model_fields if field != "id")
                raise PlacedError(("unverified", index), f"unknown field {name!r}; valid: {valid}")
        return self
