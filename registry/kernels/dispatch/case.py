"""Dispatch case: the state of one call under AITER's rules."""

from dataclasses import dataclass, field

from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour
from preshuffle.registry.kernels.aiter_versions.padding import tier_value
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.families.families import Families
from preshuffle.registry.kernels.tables.rows import Row


@dataclass(slots=True)
class DispatchCase:
    """State of one call while AITER's rules are applied.

    Attributes:
        families: By which kernels are mapped to bytes.
        gfx: Architecture that AITER was built for or set to (``GPU_ARCHS``), else the GPU's.
        tokens: Token count as it is called.
        token: The same, padded as AITER looks it up.
        topk: As the tables count it (one less with expert parallelism, by version).
        activation_dtype: dtype that the activations are quantized to; ``""`` until it is known.
        row: The row found.
        tuned: The row is used.
        kernel1: Stage 1's name from the row, ``""`` without one.
        rule: The rule that picked the stages; ``""`` until one has.
        notes: What the answer must say.
    """

    call: DispatchCall
    families: Families
    behaviour: Behaviour
    env: dict[str, str]
    gfx: str
    cu_num: int
    tokens: int
    token: int
    topk: int
    quant_type: str
    activation_dtype: str
    row: Row | None = None
    tuned: bool = False
    kernel1: str = ""
    kernel2: str = ""
    block_m: int = 0
    ksplit: int = 0
    run_1stage: bool = False
    flat: bool = False
    rule: str = ""
    notes: list[str] = field(default_factory=list)

    def at(self, tokens: int) -> "DispatchCase":
        """Return a fresh case of the call at another token count."""
        return DispatchCase(
            call=self.call,
            families=self.families,
            behaviour=self.behaviour,
            env=self.env,
            gfx=self.gfx,
            cu_num=self.cu_num,
            tokens=tokens,
            token=tier_value(self.behaviour.data.padding, tokens),
            topk=self.topk,
            quant_type=self.quant_type,
            activation_dtype="",
            notes=[*self.notes],
        )
