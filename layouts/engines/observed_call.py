"""Observation of a call, from the arguments that were passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args

import torch
from pydantic import Field

from preshuffle.layouts.engines.expert_maps import map_fields
from preshuffle.layouts.engines.observed_tensor import dtype_of, observe_tensor
from preshuffle.layouts.engines.passed_arguments import Passed, passed_arguments
from preshuffle.layouts.stamps import stamp_of
from preshuffle.registry import Applied, Registry, TensorObservation
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.words import ROLES, Dtype, GateMode, ModelActivation, QuantType
from preshuffle.registry.kernels import CALLER, Argument, Signature, SignatureTable, implied_value, takes

_AITER: Final = "aiter"
_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "gate_mode": get_args(GateMode),
    "quant_type": get_args(QuantType),
    "activation": get_args(ModelActivation),
    "quant_dtype_a": get_args(Dtype),
}
"""Fields that hold one of a closed set of words."""
_OF_QUERY: Final = ("quant_type", "activation")
_SAME: Final = {"per_128x128": "per_1x128"}
"""Quantization types for which AITER has two names."""


class ObservedCall(Applied):
    """What one call passed; what it did not pass is unknown.

    Attributes:
        query_fields: what the arguments say of the query: ``quant_type`` and ``activation`` of the kernel.
        unread: arguments that the book has no word for, by name, and values that say nothing it knows.
    """

    query_fields: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    unread: tuple[str, ...] = ()


def observed_call(
    kwargs: Mapping[str, Any],
    *,
    args: Sequence[Any] = (),
    function: str = "aiter.fused_moe",
    aiter: str | None = None,
    version: str | None = None,
    defaults: bool = False,
    packed: int | None = None,
    registry: Registry | None = None,
) -> ObservedCall:
    """Observe a call of a fused MoE from its very arguments.

    The function is AITER's, or an engine's wrapper of it.

    The tensors that the kernel got are looked at too: their tags, dtypes, shapes, strides and stamps.

    Args:
        kwargs: the named arguments.
        args: positional arguments, in the function's order.
        function: a signature of the book: ``aiter.fused_moe``, ``vllm.fused_moe``, ….
        aiter: AITER's version; None where it is not known: the newest known one is meant.
        version: the engine's, where the function is an engine's.
        defaults: the arguments are all that the function got, so those left out have the function's own defaults.
            Without it they are unknown.
        packed: values in a byte of an untyped weight (uint8), where that is known.
        registry: whose book's signatures; those of the packaged book by default.

    Raises:
        LayoutError: no signature has that name, or the arguments are not the function's.

    Example:
        >>> seen = observed_call({"gate_mode": "interleave", "quant_type": 3, "hidden_pad": 192})
        >>> seen.gate_mode, seen.query_fields["quant_type"], seen.hidden_pad, seen.intermediate_pad
        ('interleave', 'per_1x32', 192, None)
    """
    table = (registry or Registry.default()).book.signatures
    signature = table.find(function)
    release = aiter if signature.owner == _AITER else version
    passed = list(passed_arguments(signature, args, kwargs, release))
    reader = _Reader(table, signature, packed)
    for one in passed:
        reader.read(one)
    if defaults:
        reader.read_defaults({name for name, _, _ in passed}, release)
    reader.drop_what_aiter_lacks(aiter)
    return reader.result()


class _Reader:
    """Collects what the arguments of one call say."""

    def __init__(self, table: SignatureTable, signature: Signature, packed: int | None) -> None:
        self.table = table
        self.signature = signature
        self.packed = packed
        self.fields: dict[str, Any] = {str(name): value for name, value in signature.fixed.items()}
        self.tensors: dict[str, TensorObservation] = {}
        self.biases: list[bool] = []
        self.unread: list[str] = []

    def read(self, passed: Passed) -> None:
        """Take one argument."""
        name, argument, value = passed
        if argument is None:
            self.unread.append(name)
        elif argument.carries in ROLES:
            self._read_tensor(argument, name, value)
        elif argument.carries == "expert_map":
            if isinstance(value, torch.Tensor):
                self.fields.update(map_fields(value))
        elif argument.carries != CALLER:
            self._read_field(argument, name, value)

    def read_defaults(self, passed: set[str], release: str | None) -> None:
        """Take what the function itself sets for arguments that were not passed."""
        for name, argument in self.signature.arguments.items():
            if name in passed:
                continue
            taken = takes(self.signature, name, release)
            if taken is False and (implied := implied_value(argument, self.fields)) is not None:
                self.fields.setdefault(argument.carries, implied)
            if not taken:
                continue
            if argument.carries.endswith("_bias"):
                self.biases.append(False)
            elif argument.default is not None:
                self._read_field(argument, name, argument.default)

    def drop_what_aiter_lacks(self, aiter: str | None) -> None:
        """Forget fields that a wrapper does not hand on, since this AITER takes no such argument."""
        inner = self.table.by_id.get(self.signature.calls or "")
        if inner is None or aiter is None:
            return
        for name, argument in inner.arguments.items():
            if argument.carries in self.fields and takes(inner, name, aiter) is False:
                del self.fields[argument.carries]
                self.unread.append(name)

    def result(self) -> ObservedCall:
        """Return what was found."""
        of_query = {name: self.fields.pop(name) for name in _OF_QUERY if name in self.fields}
        stated = {name: value for name, value in self.fields.items() if name in Applied.model_fields}
        experts = self.tensors.get("w13_weight", self.tensors.get("w2_weight"))
        shape = experts.physical_shape if experts else None
        return ObservedCall(
            function=self.signature.function,
            **stated,
            local_experts=(shape[0],) if shape is not None and len(shape) == 3 else None,
            bias_passed=any(self.biases) if self.biases else None,
            tensors=self.tensors,
            query_fields=of_query,
            unread=tuple(self.unread),
        )

    def _read_tensor(self, argument: Argument, name: str, value: Any) -> None:
        if argument.carries.endswith("_bias"):
            self.biases.append(value is not None)
        if isinstance(value, torch.Tensor):
            role = next(role for role in ROLES if role == argument.carries)
            self.tensors[role] = observe_tensor(role, value, stamp_of(value), packed=self.packed)
        elif value is not None:
            self.unread.append(name)

    def _read_field(self, argument: Argument, name: str, value: Any) -> None:
        word = dtype_word(value) if argument.form == "dtype" else self.table.read(argument, value)
        word = _SAME.get(word, word) if isinstance(word, str) else word
        if word is None:
            return
        allowed: Iterable[Any] = _WORDS.get(argument.carries, (word,))
        if word in allowed:
            self.fields[argument.carries] = word
        else:
            self.unread.append(name)


def dtype_word(value: Any) -> Any:
    """Return the registry's word for a dtype; words stay."""
    if not isinstance(value, torch.dtype):
        return value
    name = dtype_of(torch.empty(0, dtype=value, device="meta"))
    return "fp8" if name is not None and name.startswith("fp8") else name
