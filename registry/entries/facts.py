"""Facts of a deployment by name, and conditions on them.

Contracts and deny-lists of the book are made of these.

A fact that is not known is absent, and an absent fact satisfies no condition: nothing is concluded from what was not
observed. ``inter_dim % 256`` is the remainder of a fact that counts; ``intermediate_size % tp`` that by the ranks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from preshuffle.registry.base.words import Role
from preshuffle.registry.entries.condition import Condition, Scalar

Facts = Mapping[str, Scalar]

_VERSIONS = frozenset({"aiter", "rocm", "engine_version"})
_GLOBS = frozenset({"model", "engine", "deployment", "kernel1", "kernel2", "backend_name", "moe_shape"})
COUNTED = frozenset(
    {
        "cu_num", "hidden_size", "intermediate_size", "num_experts", "top_k", "tp", "ep", "dp", "hidden_pad",
        "intermediate_pad", "model_dim", "inter_dim", "rank_inter", "experts", "tokens", "w2_groups",
        "mask_ones", "mask_size", "block_m",
    }
)  # fmt: skip
_PLAIN = frozenset(
    {
        "arch", "arch_mx", "weight_dtype", "quant_type", "activation", "activation_dtype", "gate_up_order", "producer",
        "gated", "bias", "router_weight_on_input", "router_weight",
        "function", "gate_mode", "bias_passed", "expert_map", "swizzle_mx_scale", "source_order",
        "fallback_backend", "graphs", "eplb", "lora", "w13_layout", "w2_layout", "w13_scale_layout", "w2_scale_layout",
        "w13_bias_layout", "w13_tag", "w2_tag", "backend", "reader", "func1", "family1", "family2", "runs_in",
        "one_stage", "tuned", "predicted", "swiglu_limit", "model_limit", "all_to_all", "shared_experts",
        "input_scales", "activation_scales",
    }
)  # fmt: skip
RUN_FACTS = frozenset(
    {
        "tokens", "backend", "backend_name", "reader", "func1", "family1", "family2", "kernel1", "kernel2", "runs_in",
        "one_stage", "tuned", "predicted", "gate_mode", "bias_passed", "model_dim", "inter_dim", "is_shuffled",
        "doweight_stage1", "observed", "block_m",
    }
)  # fmt: skip
"""Facts of one run; all others are the same for every kernel of a deployment."""

LAYOUT_FACTS: tuple[tuple[str, Role], ...] = (
    ("w13_layout", "w13_weight"),
    ("w2_layout", "w2_weight"),
    ("w13_scale_layout", "w13_weight_scale"),
    ("w2_scale_layout", "w2_weight_scale"),
    ("w13_bias_layout", "w13_bias"),
)
"""Facts that name a tensor's layout, and the tensor's role."""

MODEL_NAME = "model_name"
"""The model as the observation names it, where the book has it under another name; conditions on ``model`` see both."""

NAMES = tuple(sorted(_VERSIONS | _GLOBS | COUNTED | _PLAIN | RUN_FACTS))
_RANKS = frozenset({"tp", "ep", "dp"})
"""Facts by which a remainder may be taken."""
_REMAINDER = re.compile(r"^(\w+) % (\w+)$")


def moe_shape(experts: int | None, model_dim: int | None, top_k: int | None) -> str | None:
    """Return experts, hidden size and top-k as ``257x7168x9``.

    Experts are those of one rank.

    Kernels compiled per these three sizes are named by it in the book. None where one is unknown.
    """
    sizes = (experts, model_dim, top_k)
    return None if None in sizes else "x".join(map(str, sizes))


@dataclass(frozen=True, slots=True)
class FactCondition:
    """A condition on one fact, or on its remainder.

    Attributes:
        modulus: what the remainder is by: a number, or the fact that says it; None for the fact itself.
        plain_values: the values that satisfy it, where it is a plain list of them; else nothing.
    """

    fact: str
    modulus: int | str | None
    condition: Condition
    plain_values: frozenset[Scalar] = frozenset()

    @staticmethod
    def parse(name: str, wanted: object) -> FactCondition:
        """Parse ``name: wanted`` of the book.

        Raises:
            ValueError: there is no such fact, or the value has no meaning for it.
        """
        match = _REMAINDER.match(name)
        fact = match[1] if match else name
        if fact not in NAMES and not fact.startswith("env."):
            raise ValueError(f"unknown fact {fact!r}; valid: {', '.join(NAMES)}, env.NAME")
        modulus = _modulus(name, fact, match[2]) if match else None
        condition = Condition.parse(name, wanted, _reading(fact))
        plain = frozenset() if match or condition.versioned else frozenset(condition.values)
        return FactCondition(fact, modulus, condition, plain)

    @property
    def facts(self) -> tuple[str, ...]:
        """The facts that it is about."""
        return (self.fact, self.modulus) if isinstance(self.modulus, str) else (self.fact,)

    def holds(self, facts: Facts) -> bool:
        """Whether the fact is known and satisfies the condition.

        A model counts by its entry's name and by its own.
        """
        if self.fact == "model" and MODEL_NAME in facts and self._satisfied(facts[MODEL_NAME]):
            return True
        value = facts.get(self.fact)
        return self._satisfied(value if self.modulus is None else self._remainder(value, facts))

    def _satisfied(self, value: Scalar) -> bool:
        if self.plain_values:
            return value in self.plain_values
        if value is None:
            return False
        return self.condition.matches(value)

    def _remainder(self, value: Scalar, facts: Facts) -> int | None:
        modulus = facts.get(self.modulus) if isinstance(self.modulus, str) else self.modulus
        return int(value) % int(modulus) if value is not None and modulus else None


def _modulus(name: str, fact: str, text: str) -> int | str:
    """Read what a remainder is by.

    Raises:
        ValueError: it, or the fact, cannot be in a remainder.
    """
    if text in _RANKS and fact in COUNTED - RUN_FACTS:
        return text
    if fact not in COUNTED or not text.isdecimal() or int(text) < 2:
        raise ValueError(
            f"{name!r}: a remainder needs a fact that counts and a modulus above 1 or, for a fact that is the same for "
            f"every run, one of {', '.join(sorted(_RANKS))}"
        )
    return int(text)


def _reading(fact: str) -> str:
    if fact in _VERSIONS:
        return "version"
    if fact in _GLOBS:
        return "glob"
    return "number" if fact in COUNTED or fact.startswith("env.") else "plain"
