"""Parser of MLIR's generic form: operations, their attributes and types.

MLIR prints every operation alike with ``print_generic_op_form``: ``%0 = "name"(%1)[^block] <{properties}> ({region})
{attributes} : (types) -> type``, one per line, locations left out. Nothing else is parsed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from preshuffle.layouts.emulator.errors import CodeObjectError
from preshuffle.layouts.emulator.mlir.types import IrType, parse_type, split_list

_HEAD = re.compile(
    r'(?:(?P<results>%[\w$.]+)(?::(?P<count>\d+))? = )?"(?P<name>[\w.$]+)"\((?P<operands>[^)]*)\)'
    r"(?:\[(?P<successors>[^\]]*)\])?(?P<rest>.*)"
)
_BLOCK = re.compile(r"\^(?P<name>\w+)(?:\((?P<arguments>.*)\))?:\s*(?://.*)?")
_FLAGS = {"true": 1, "false": 0, "": 1}
"""Values of a Boolean attribute; one without a value is set."""


@dataclass(frozen=True, slots=True)
class ParsedOperation:
    """Operation as printed.

    Attributes:
        operands: names of values.
        results: names of the values that it defines.
        successors: names of blocks.
        attributes: by name, as printed; properties are among them.
        region: blocks of its only region, if it has one.
    """

    name: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    successors: tuple[str, ...]
    attributes: dict[str, str]
    operand_types: tuple[IrType, ...]
    result_types: tuple[IrType, ...]
    region: tuple["ParsedBlock", ...] = ()

    def text(self, attribute: str) -> str:
        """Return a string attribute without its quotes."""
        return self.attributes[attribute].split(" : ")[0].strip('"')

    def number(self, attribute: str, default: int = 0) -> int:
        """Return an integer attribute; true is 1."""
        text = self.attributes.get(attribute)
        if text is None:
            return default
        word = text.split(" : ")[0]
        return _FLAGS[word] if word in _FLAGS else int(word, 0)

    def numbers(self, attribute: str) -> list[int]:
        """Return an ``array<i32: …>`` attribute."""
        _, _, listed = self.attributes[attribute].partition(":")
        return [int(number) for number in re.findall(r"-?\d+", listed)]


@dataclass(slots=True)
class ParsedBlock:
    """Block of a region: its arguments and operations."""

    name: str
    arguments: list[tuple[str, IrType]] = field(default_factory=list)
    operations: list[ParsedOperation] = field(default_factory=list)


def parse_module(text: str) -> ParsedOperation:
    """Return the module of a text in generic form.

    Raises:
        CodeObjectError: it is in another form, or incomplete.
        UnmodelledInstructionError: a type is not known.
    """
    lines = iter([stripped for line in text.splitlines() if (stripped := line.strip()) and stripped[0] not in "#/"])
    first = next(lines, "")
    if not first.startswith('"builtin.module"'):
        raise CodeObjectError(f"no MLIR module in generic form: it begins with {first[:60]!r}")
    return _operation(first, lines)


def _operation(line: str, lines: Iterator[str]) -> ParsedOperation:
    found = _HEAD.fullmatch(line)
    if found is None:
        raise CodeObjectError(f"no operation of MLIR's generic form: {line[:80]!r}")
    properties, rest = _braced(found["rest"].strip(), "<{", "}>")
    region: tuple[ParsedBlock, ...] = ()
    if rest.startswith("({"):
        region, rest = _region(lines)
    attributes, rest = _braced(rest, "{", "}")
    operand_types, result_types = _signature(rest)
    return ParsedOperation(
        name=found["name"],
        operands=tuple(name for name in split_list(found["operands"])),
        results=_results(found["results"], found["count"]),
        successors=tuple(name.strip("^ ") for name in (found["successors"] or "").split(",") if name),
        attributes=properties | attributes,
        operand_types=operand_types,
        result_types=result_types,
        region=region,
    )


def _results(name: str | None, count: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    return (name,) if count is None else tuple(f"{name}#{index}" for index in range(int(count)))


def _region(lines: Iterator[str]) -> tuple[tuple[ParsedBlock, ...], str]:
    """Return the blocks up to the line that closes the region, and the rest of that line."""
    blocks: list[ParsedBlock] = []
    for line in lines:
        if line.startswith("})"):
            return tuple(blocks), line[2:].strip()
        block = _BLOCK.fullmatch(line)
        if block is not None:
            blocks.append(ParsedBlock(block["name"], _arguments(block["arguments"] or "")))
            continue
        if not blocks:
            blocks.append(ParsedBlock(""))
        blocks[-1].operations.append(_operation(line, lines))
    raise CodeObjectError("the MLIR text ends within a region")


def _arguments(text: str) -> list[tuple[str, IrType]]:
    named = (argument.partition(": ") for argument in split_list(text))
    return [(name, parse_type(type)) for name, _, type in named]


def _braced(text: str, opening: str, closing: str) -> tuple[dict[str, str], str]:
    """Return the attributes in braces at the start of a text, and what follows them."""
    if not text.startswith(opening):
        return {}, text
    depth, quoted, at = 0, False, 0
    for at, character in enumerate(text):
        if character == '"' and text[at - 1] != "\\":
            quoted = not quoted
        elif not quoted and character in "{":
            depth += 1
        elif not quoted and character == "}":
            depth -= 1
            if not depth:
                break
    inner = text[len(opening) : at]
    pairs = (attribute.partition(" = ") for attribute in split_list(inner))
    return {name.strip(): value.strip() for name, _, value in pairs}, text[at + len(closing) :].strip()


def _signature(text: str) -> tuple[tuple[IrType, ...], tuple[IrType, ...]]:
    """Return the types in ``: (operands) -> results``."""
    if not text.startswith(": ("):
        raise CodeObjectError(f"an operation without its types: {text[:80]!r}")
    operands, _, results = text[2:].rpartition(" -> ")
    return _types(operands), _types(results)


def _types(text: str) -> tuple[IrType, ...]:
    text = text.strip()
    inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    return tuple(parse_type(type) for type in split_list(inner))
