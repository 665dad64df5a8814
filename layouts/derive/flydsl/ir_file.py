"""Files with a kernel's MLIR, and what it was compiled from.

The MLIR is in generic form.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from preshuffle.layouts.derive.errors import DeriveError
from preshuffle.layouts.derive.kernels.layer_run import LayerSizes

HEADER = "// preshuffle: "
"""Start of the first line, a comment of MLIR, before its facts as JSON."""


@dataclass(frozen=True, slots=True)
class IrFile:
    """MLIR of a kernel that was compiled for one layer.

    Attributes:
        kernel: AITER's name of it.
        text: MLIR in generic form.
        sha256: of FlyDSL's own dump, before that was brought into generic form.
        aiter: commit or version, where known.
        gate_mode: ``separated`` or ``interleave``, where the call says so and not the name.
        activation: ``silu``, ``swiglu`` or ``situv2``.
        bias: whether it adds a bias before the activation.
        hidden_pad: columns of ``model_dim`` that are padding.
        intermediate_pad: columns of ``inter_dim`` that are padding.
        machine_code: whether LLVM has instructions for all of it on that GPU.
    """

    kernel: str
    text: str
    sha256: str
    experts: int
    inter_dim: int
    model_dim: int
    top_k: int
    flydsl: str
    aiter: str | None = None
    gate_mode: str = "separated"
    activation: str = "silu"
    bias: bool = False
    hidden_pad: int = 0
    intermediate_pad: int = 0
    machine_code: bool = True

    @property
    def sizes(self) -> LayerSizes:
        """Size of the layer."""
        return LayerSizes(
            self.experts,
            self.inter_dim,
            self.model_dim,
            hidden_pad=self.hidden_pad,
            intermediate_pad=self.intermediate_pad,
        )

    def write(self, path: Path) -> None:
        """Write the text with its facts in a comment at the top."""
        facts = {name: value for name, value in asdict(self).items() if name != "text"}
        path.write_text(f"{HEADER}{json.dumps(facts)}\n{self.text}", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> "IrFile":
        """Read a file that `write` wrote.

        Raises:
            DeriveError: the file lacks the facts about the kernel.
        """
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
        if not first.startswith(HEADER):
            raise DeriveError(
                f"{path} does not say from which kernel and for which layer it was compiled: its first line must be "
                f"{HEADER}{{…}}, as preshuffle derive KERNEL --save FILE writes it"
            )
        return IrFile.of(json.loads(first.removeprefix(HEADER)), text)

    @staticmethod
    def of(facts: Mapping[str, Any], text: str) -> "IrFile":
        """Return a file of facts as JSON has them.

        Raises:
            DeriveError: a fact is missing or unknown.
        """
        try:
            return IrFile(text=text, **facts)
        except TypeError as error:
            raise DeriveError(f"facts about a kernel's MLIR: {error}") from error


def is_ir(path: Path) -> bool:
    """Return whether a file holds MLIR, by its name."""
    return path.suffix == ".mlir"
