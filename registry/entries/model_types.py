"""Entries on checkpoints: names in ``config.json``, quantization sections, tensors."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, freeze
from preshuffle.registry.base.words import Dtype, ModelActivation, Role, TensorDtype
from preshuffle.registry.entries.models import ModelFacts
from preshuffle.registry.entries.platform import Evidence

StoredDtype = TensorDtype | Literal["int8", "int32"]


class FoldedScale(Frozen):
    """Where the scale of a role's scales lies.

    One number for each linear layer.

    Attributes:
        name: as of ``CheckpointTensor``, and so are the others.
        up: likewise.
        shared: likewise.
        dtype: likewise.
    """

    name: str
    up: str | None = None
    shared: tuple[str, ...] = ()
    dtype: StoredDtype | tuple[StoredDtype, ...]


class CheckpointTensor(Frozen):
    """Where a role lies in a checkpoint.

    Attributes:
        name: the tensor's name with ``{layer}``; with ``{expert}`` where every expert has a tensor of its own. Of w13
            it is gate's where ``up`` is given.
        up: the name of up's tensor, where gate and up lie apart.
        shared: where the shared expert's lies, named as ``name`` is; and as ``up``.
        merge_last: dimensions at the end to merge into K.
        dtype: how it is stored; where several are listed, any of them.
        packed: how many values one stored element holds that must be unpacked into one byte each (int4 in int32).
        folded: of a scale, where the numbers lie that are multiplied into it.
    """

    name: str
    up: str | None = None
    shared: tuple[str, ...] = ()
    merge_last: Annotated[int, Field(ge=1, le=4)] = 1
    dtype: StoredDtype | tuple[StoredDtype, ...]
    packed: Literal[1, 8] = 1
    folded: FoldedScale | None = None

    @property
    def dtypes(self) -> tuple[StoredDtype, ...]:
        """The dtypes in which it may be stored."""
        return (self.dtype,) if isinstance(self.dtype, str) else self.dtype

    @property
    def second(self) -> Self | None:
        """Where the scale of the scales lies, as a tensor to read."""
        one = self.folded
        return type(self)(name=one.name, up=one.up, shared=one.shared, dtype=one.dtype) if one else None

    @property
    def per_expert(self) -> bool:
        """Whether every expert has a tensor of its own."""
        return "{expert}" in self.name


class ExpertModules(Frozen):
    """What a model type calls the linear layers of its experts.

    Attributes:
        blocks: the MoE block's module with ``{layer}``; further ones are what wrappers make of it.
        expert: an expert's module below it, with ``{expert}`` where every expert is one.
        gate: name of the gate's linear layer below that.
        up: name of up's.
        down: name of down's.
        shared: the shared expert's module below the block.
        shared_linears: names of its gate, up and down, where they are others.
    """

    blocks: Annotated[tuple[str, ...], Field(min_length=1)]
    expert: str = "experts.{expert}"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    shared: str | None = None
    shared_linears: tuple[str, str, str] | None = None

    @property
    def linears(self) -> tuple[str, str, str]:
        """Gate, up and down below an expert's module."""
        return self.gate, self.up, self.down


class MoeLayers(Frozen):
    """Configuration fields that say which layers have experts.

    The first one that is there counts.

    Attributes:
        first_dense: how many layers at the beginning have none.
        last: the last layer that may have them; a negative number counts from the end.
        every: a step; layers whose number plus one it divides have them.
        offset: the first of the stepped layers, where it is not the step less one.
        dense: a list of the layers that have none.
        listed: a list of the layers that have them, or their numbers with commas between them.
        flags: one entry per layer, as a list or as the letters of a text. A plain number is a step.
        marks: the flags that mean experts; without it, all but 0, false and ``dense``.
    """

    first_dense: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    every: tuple[str, ...] = ()
    offset: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


class StoredTensor(Frozen):
    """Tensor of a quantized linear layer: name suffix and storage.

    Attributes:
        name: behind the layer's name.
        also: what it is called in checkpoints for other engines; all tensors of a checkpoint have names of one place.
        dtype: as of ``CheckpointTensor``.
        packed: likewise.
    """

    name: str
    also: tuple[str, ...] = ()
    dtype: StoredDtype | tuple[StoredDtype, ...]
    packed: Literal[1, 8] = 1

    def name_at(self, place: int) -> str:
        """Return one of its names; the last one where there are fewer."""
        names = (self.name, *self.also)
        return names[min(place, len(names) - 1)]


class QuantizationCase(Frozen):
    """What one form of a quantization section means.

    Attributes:
        when: dotted path to the values that it may have there; null is one that is absent or null.
        facts: what it says of the experts. Where it names no ``weight_dtype`` the model's own dtype is meant.
        weight: where a linear layer's values lie.
        scale: where their scales lie.
        second_scale: where the scale of those scales lies, one number for each linear layer.
        input_scale: where static scales of activations lie.
        shared_weight_dtype: dtype of shared experts, where it is another than the routed experts'.
    """

    when: Annotated[FrozenDict[str, tuple[Any, ...]], AfterValidator(freeze)] = Field(default_factory=FrozenDict)
    facts: ModelFacts
    weight: StoredTensor | None = None
    scale: StoredTensor | None = None
    second_scale: StoredTensor | None = None
    input_scale: StoredTensor | None = None
    shared_weight_dtype: Dtype | None = None


class QuantizationEntry(Frozen):
    """How a ``quant_method`` of ``quantization_config`` says what the experts are.

    Attributes:
        aliases: other names of the method, which mean the same.
        named: path to a mapping of module patterns to what holds for those modules.
        grouped: path to a mapping of groups, each with the modules that it is for in ``targets``.
        general: path to what holds for all other modules; empty for the section itself.
        exclude: names of lists of modules that are not quantized.
        cases: the first that fits says what the experts are.
        refused: why no engine runs experts of this method through AITER's fused MoE, where that is known.
        activation_scales: path that says whether scales of activations are computed (true, ``dynamic``) or come with
            the checkpoint (false, ``static``).
        harmless: further keys that say nothing of the experts' dtype or layout: dotted paths, or globs of them, with
            the values for which that holds (none listed: any).
    """

    id: str
    aliases: tuple[str, ...] = ()
    named: str | None = None
    grouped: str | None = None
    general: str = ""
    exclude: tuple[str, ...] = ()
    cases: tuple[QuantizationCase, ...] = ()
    refused: str | None = None
    activation_scales: str | None = None
    harmless: FrozenDict[str, tuple[Any, ...]] = Field(default_factory=FrozenDict)
    evidence: Evidence = ()

    @model_validator(mode="after")
    def _reads_or_refuses(self) -> Self:
        if bool(self.cases) is bool(self.refused):
            raise PlacedError(("cases",), "either cases say what the experts are, or refused says why none run")
        return self


class ModelTypeEntry(Frozen):
    """Names that a Hugging Face ``model_type`` uses.

    In ``config.json`` and in its checkpoints.

    Attributes:
        aliases: other names of the type; its language model alone often has one.
        like: another type, whose fields hold here where this entry leaves them out.
        wraps: sections of the configuration, the first of which that is there names the language model's own type,
            which says the rest.
        section: path of the language model's configuration; empty for the file itself. Parts of the path that a file
            does not have are skipped, so that the inner configuration alone is read too.
        fields: query field to the names it may have in the configuration, the first that is there wins. A list has one
            value per layer.
        has_experts: configuration fields that are 0, false or absent where a model of the type has no experts.
        values: query field to what its words in the configuration mean.
        fixed: a model entry's field to its names in the configuration. No query can say it, so the value must be the
            one that the model's entry has.
        clamped_activation: the activation of layers that have a ``swiglu_limit``, where the clamp makes it another one.
        constants: facts that hold for every model of the type.
        producers: who makes its checkpoints, by ``quant_method``; the method itself where it is not listed.
        cases: forms of the configuration that say what the experts are, before ``quantization_config`` does. Of a
            ``quant_method`` that one of them names, no other form is known.
        shared_experts: names of the number of shared experts.
        shared_expert_size: names of a shared expert's size; there is one if it is as wide as the others.
        experts: what linear layers of experts are called.
        checkpoint: role to the tensor that holds it, by ``quant_method`` (``none`` without one), for checkpoints that
            do not store linear layers of single experts.
    """

    id: str
    aliases: tuple[str, ...] = ()
    like: str | None = None
    wraps: tuple[str, ...] = ()
    section: str = ""
    fields: FrozenDict[str, tuple[str, ...]] = Field(default_factory=FrozenDict)
    has_experts: tuple[str, ...] = ()
    values: FrozenDict[str, FrozenDict[str, Any]] = Field(default_factory=FrozenDict)
    fixed: FrozenDict[Literal["swiglu_alpha", "situ_beta", "situ_linear_beta"], tuple[str, ...]] = Field(
        default_factory=FrozenDict
    )
    layers: tuple[str, ...] = ("num_hidden_layers",)
    moe_layers: MoeLayers = MoeLayers()
    clamped_activation: ModelActivation | None = None
    constants: ModelFacts = ModelFacts()
    producers: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    cases: tuple[QuantizationCase, ...] = ()
    shared_experts: tuple[str, ...] = ()
    shared_expert_size: tuple[str, ...] = ()
    experts: ExpertModules | None = None
    checkpoint: FrozenDict[str, FrozenDict[Role, CheckpointTensor]] = Field(default_factory=FrozenDict)
    evidence: Evidence = ()

    @property
    def has_shared_experts(self) -> bool:
        """Whether its models may have shared experts that an engine can fuse."""
        return bool(self.shared_experts or self.shared_expert_size or self.wraps)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not {"fields", "like", "wraps"} & self.model_fields_set:
            raise ValueError("one of fields, like and wraps is needed")
        return self

    @model_validator(mode="after")
    def _fields_are_facts(self) -> Self:
        for place, names in (("fields", self.fields), ("values", self.values)):
            unknown = sorted(set(names) - set(ModelFacts.model_fields))
            if unknown:
                text = f"unknown {', '.join(unknown)}; valid: {', '.join(ModelFacts.model_fields)}"
                raise PlacedError((place, unknown[0]), text)
        return self
