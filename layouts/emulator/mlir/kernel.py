"""Kernel in MLIR's LLVM dialect: its blocks, local memory and launch."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from preshuffle.layouts.emulator.errors import CodeObjectError, UnmodelledInstructionError
from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compile_operation
from preshuffle.layouts.emulator.mlir.text import ParsedBlock, ParsedOperation, parse_module
from preshuffle.layouts.emulator.mlir.types import LDS_SPACE, IrType, parse_type

LDS_ALIGNMENT = 1024
CONTROL = ("llvm.br", "llvm.cond_br", "llvm.return", "gpu.launch_func")


@dataclass(slots=True)
class IrStep:
    """Operation whose values are numbered.

    Attributes:
        run: computes the results; None for control flow, and until the operation is first reached.
        free: numbers of the values that are not used after it.
    """

    operation: Operation
    operands: tuple[int, ...]
    results: tuple[int, ...]
    targets: tuple[int, ...]
    run: Run | None = None
    free: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Steps without a branch between them; arguments are numbers of values."""

    arguments: tuple[int, ...]
    types: tuple[IrType, ...]
    steps: tuple[IrStep, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """Function with a body: blocks in the order of the text."""

    name: str
    blocks: tuple[Block, ...]
    values: int

    @property
    def arguments(self) -> tuple[IrType, ...]:
        """Types of the arguments."""
        return self.blocks[0].types


class KernelIr:
    """Kernel and the host function that launches it.

    Attributes:
        arch: GPU for which it was made.
        lds: start of each variable in local memory, by symbol.
        lds_bytes: of a block of threads.
    """

    def __init__(self, text: str) -> None:
        """Parse a module in MLIR's generic form.

        Raises:
            CodeObjectError: it is no module with one kernel and the function that launches it.
            UnmodelledInstructionError: a type is not known.
        """
        module = parse_module(text)
        device = [operation for operation in _body(module) if operation.name == "gpu.module"]
        if len(device) != 1:
            raise CodeObjectError(f"{len(device)} GPU modules instead of one")
        chip = re.search(r'chip = "(gfx\w+)"', device[0].attributes.get("targets", ""))
        if chip is None:
            raise CodeObjectError("the GPU module names no target GPU")
        self.arch = chip[1]
        self.lds: dict[str, int] = {}
        self.lds_bytes = 0
        for operation in _body(device[0]):
            if operation.name == "llvm.mlir.global":
                self._place(operation)
        self.device = _only([item for item in _body(device[0]) if item.name == "llvm.func" and item.region], "kernel")
        self.host = _only(
            [item for item in _body(module) if item.name == "llvm.func" and _launches(item)], "function that launches"
        )

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return self.device.name

    @cached_property
    def operations(self) -> Counter[str]:
        """Operations of the kernel with their counts."""
        return Counter(step.operation.label for block in self.device.blocks for step in block.steps)

    def not_modelled(self) -> Counter[str]:
        """Return operations that are not modelled, with their counts."""
        missing: Counter[str] = Counter()
        for block in (*self.device.blocks, *self.host.blocks):
            for step in block.steps:
                if step.operation.name in CONTROL:
                    continue
                try:
                    compile_operation(step.operation)
                except UnmodelledInstructionError:
                    missing[step.operation.label] += 1
        return missing

    def _place(self, operation: ParsedOperation) -> None:
        variable = operation.attributes["global_type"]
        if operation.number("addr_space") != LDS_SPACE:
            raise UnmodelledInstructionError(f"a variable outside local memory: {variable}")
        self.lds_bytes += -self.lds_bytes % LDS_ALIGNMENT
        self.lds[operation.text("sym_name")] = self.lds_bytes
        self.lds_bytes += parse_type(variable).size


def _body(operation: ParsedOperation) -> list[ParsedOperation]:
    return [inner for block in operation.region for inner in block.operations]


def _launches(function: ParsedOperation) -> bool:
    return any(operation.name == "gpu.launch_func" for operation in _body(function))


def _only(functions: list[ParsedOperation], what: str) -> Function:
    if len(functions) != 1:
        raise CodeObjectError(f"{len(functions)} functions instead of one {what}")
    return _function(functions[0])


def _function(parsed: ParsedOperation) -> Function:
    numbers: dict[str, int] = {}
    order = {block.name: index for index, block in enumerate(parsed.region)}

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers))

    blocks = []
    lasting = _lasting(parsed.region)
    for block in parsed.region:
        steps = [
            IrStep(
                Operation.of(operation),
                tuple(number(name) for name in operation.operands),
                tuple(number(name) for name in operation.results),
                tuple(order[name] for name in operation.successors),
            )
            for operation in block.operations
        ]
        _free_after_last_use(steps, {number(name) for name in lasting})
        arguments = tuple(number(name) for name, _ in block.arguments)
        blocks.append(Block(arguments, tuple(type for _, type in block.arguments), tuple(steps)))
    return Function(parsed.text("sym_name"), tuple(blocks), len(numbers))


def _lasting(blocks: tuple[ParsedBlock, ...]) -> set[str]:
    """Return values that are used in a block other than that which defines them, and arguments."""
    defined = {name: block.name for block in blocks for operation in block.operations for name in operation.results}
    lasting = {name for block in blocks for name, _ in block.arguments}
    for block in blocks:
        for operation in block.operations:
            lasting |= {name for name in operation.operands if defined.get(name) != block.name}
    return lasting


def _free_after_last_use(steps: list[IrStep], lasting: set[int]) -> None:
    later: set[int] = set()
    for step in reversed(steps):
        names = set(step.operands) | set(step.results)
        step.free = tuple(names - later - lasting)
        later |= names
