"""Statements and expressions of the pseudocode, parsed and run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from support.pseudocode.functions import FUNCTIONS
from support.pseudocode.values import COMPARE, Number, bits_of, combined, from_bits, typed, viewed

TOKEN = re.compile(
    r"//[^\n]*|\s+|(\d+'[UIFB](?=[(\[])|\d+'(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?)[UL]*|\d+\.\d+F?|0x[0-9a-fA-F]+[UL]*|\d+[UL]*"
    r"|[A-Za-z_]\w*|\+=|-=|<<|>>|<>|<=|>=|==|!=|&&|\|\||\*\*|.)"
)
PRECEDENCE = [
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!=", "<>"),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
    ("**",),
]
Environment = dict[str, Any]
Lookup = Callable[[str], str | None]


class _Returned(Exception):
    def __init__(self, value: Number) -> None:
        super().__init__()
        self.value = value


def run(code: str, environment: Environment, pseudocode: Mapping[str, str]) -> Environment:
    """Run pseudocode on named values and return them, changed.

    Args:
        code: of one instruction.
        environment: registers by the pseudocode's names, as numbers or lists of numbers.
        pseudocode: of other instructions, which the code may call by name.
    """
    _Runner([token for token in TOKEN.findall(code) if token], environment, pseudocode).block(())
    return environment


class _Runner:
    """Recursive-descent interpreter; ``live`` is off where a branch is skipped."""

    def __init__(self, tokens: list[str], environment: Environment, pseudocode: Mapping[str, str]) -> None:
        self.tokens, self.at, self.live = tokens, 0, True
        self.environment, self.pseudocode = environment, pseudocode

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, token: str) -> bool:
        if self.peek() == token:
            self.at += 1
            return True
        return False

    def need(self, token: str) -> None:
        found = self.next()
        assert found == token, f"expected {token}, found {found} in {' '.join(self.tokens)}"

    def block(self, ends: tuple[str, ...]) -> None:
        while self.peek() and self.peek() not in ends:
            if not self.take(";"):
                self.statement()

    def statement(self) -> None:
        word = self.peek()
        if word in ("if", "for", "declare", "return"):
            self.next()
            {"if": self.branch, "for": self.loop, "declare": self.declare, "return": self.give_back}[word]()
        else:
            self.assign()

    def give_back(self) -> None:
        value = self.expression()
        if self.live:
            raise _Returned(value)

    def branch(self) -> None:
        outside, done = self.live, False
        while True:
            condition = bool(self.expression().value)
            self.need("then")
            self.live = outside and condition and not done
            done = done or condition
            self.block(("elsif", "else", "endif"))
            word = self.next()
            if word == "elsif":
                self.live = outside
                continue
            if word == "else":
                self.live = outside and not done
                self.block(("endif",))
                self.need("endif")
            self.live = outside
            return

    def loop(self) -> None:
        name = self.next()
        self.need("in")
        first = int(self.expression().value)
        self.need(":")
        last = int(self.expression().value)
        self.need("do")
        start = self.at
        for index in range(first, last + 1):
            self.at = start
            self.environment[name] = Number(index)
            self.block(("endfor",))
        self.need("endfor")

    def declare(self) -> None:
        name = self.next()
        self.need(":")
        width = int(self.next().split("'")[0]) if "'" in self.peek() else 32
        count = None
        if self.take("["):
            count = int(self.next())
            self.need("]")
        while self.peek() not in (";", ""):
            self.next()
        if name not in self.environment or (count is not None and not self.environment.get(name)):
            blank = Number(0, "b", width)
            self.environment[name] = blank if count is None else [blank] * count

    def assign(self) -> None:
        name = self.next()
        path = self.path()
        operator = self.next()
        assert operator in ("=", "+=", "-="), f"{operator} after {name}"
        if self.take("lambda"):
            self.define(name)
            return
        value = self.expression()
        if not self.live:
            return
        if operator != "=":
            value = combined(operator[0], self.read(self.environment[name], path), value)
        self.environment[name] = self.stored(self.environment.get(name, Number(0, "b", 64)), path, value)

    def define(self, name: str) -> None:
        self.need("(")
        parameters = []
        while not self.take(")"):
            parameters.append(self.next())
            self.take(",")
        self.need("(")
        start, depth = self.at, 1
        while depth:
            depth += {"(": 1, ")": -1}.get(self.next(), 0)
        body = self.tokens[start : self.at - 1]

        def call(*values: Number) -> Number:
            inside = _Runner(body, {**self.environment, **dict(zip(parameters, values, strict=True))}, self.pseudocode)
            try:
                inside.block(())
            except _Returned as returned:
                return returned.value
            raise AssertionError(f"{name} returns nothing")

        self.environment[name] = call

    def path(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        while True:
            if self.take("."):
                found.append(("type", self.next()))
            elif self.take("["):
                high = self.expression()
                low = self.expression() if self.take(":") else None
                self.need("]")
                found.append(("part", (int(high.value), int((low or high).value), low is None)))
            else:
                return found

    def read(self, value: Any, path: list[tuple[str, Any]]) -> Any:
        for kind, detail in path:
            if kind == "type":
                value = value[detail] if isinstance(value, dict) else viewed(value, detail)
            elif isinstance(value, list):
                value = value[detail[0]]
            else:
                high, low, _ = detail
                value = from_bits(bits_of(value) >> low, "b", high - low + 1)
        return value

    def stored(self, old: Any, path: list[tuple[str, Any]], value: Any) -> Any:
        if not path:
            return value
        (kind, detail), rest = path[0], path[1:]
        if kind == "part" and isinstance(old, list):
            old[detail[0]] = self.stored(old[detail[0]], rest, value)
            return old
        if kind == "type":
            if rest:
                return self.stored(viewed(old, detail), rest, value)
            target = viewed(Number(0, "b", 64), detail)
            return typed(value.value, target.kind, target.width) if detail[:2] not in ("bf", "fp") else value
        high, low, _ = detail
        width = high - low + 1
        part = self.stored(from_bits(bits_of(old) >> low, "b", width), rest, value)
        kept = bits_of(old) & ~((1 << width) - 1 << low)
        return Number(kept | (bits_of(part) & (1 << width) - 1) << low, "b", max(64, old.width))

    def expression(self) -> Number:
        condition = self.binary(0)
        if not self.take("?"):
            return condition
        first = self.expression()
        self.need(":")
        second = self.expression()
        return first if condition.value else second

    def binary(self, level: int) -> Number:
        if level == len(PRECEDENCE):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek() in PRECEDENCE[level]:
            operator = self.next()
            right = self.binary(level + 1)
            left = _applied(operator, left, right)
        return left

    def unary(self) -> Number:
        if self.take("-"):
            number = self.unary()
            return typed(-number.value, number.kind, number.width)
        if self.take("+"):
            return self.unary()
        if self.take("~"):
            number = self.unary()
            return typed(~int(number.value), number.kind, number.width)
        if self.take("!"):
            return Number(int(not self.unary().value), "u", 1)
        return self.postfix()

    def postfix(self) -> Number:
        value = self.primary()
        found: Number = self.read(value, self.path())
        return found

    def primary(self) -> Any:
        token = self.next()
        if token == "(":
            value = self.expression()
            self.need(")")
            return value
        if token == "{":
            return self.concatenated()
        if re.fullmatch(r"\d+'[UIFB]", token):
            return self.cast(token)
        if token[0].isdigit():
            return _literal(token)
        if self.peek() == "(":
            return self.call(token)
        assert token in self.environment, f"{token} is not known"
        return self.environment[token]

    def concatenated(self) -> Number:
        bits, width = 0, 0
        while True:
            part = self.expression()
            bits, width = bits << part.width | bits_of(part), width + part.width
            if not self.take(","):
                self.need("}")
                return Number(bits, "b", width)

    def cast(self, token: str) -> Number:
        width, kind = token.split("'")
        self.need("(")
        value = self.expression()
        self.need(")")
        if kind == "B":
            return from_bits(bits_of(value), "b", int(width))
        return typed(value.value, kind.lower(), int(width))

    def call(self, name: str) -> Number:
        self.need("(")
        arguments = []
        while not self.take(")"):
            arguments.append(self.expression())
            self.take(",")
        if name in self.environment:
            called: Number = self.environment[name](*arguments)
            return called
        if name in self.pseudocode and name not in FUNCTIONS:
            names = dict(zip(("S0", "S1", "S2"), arguments, strict=False))
            inside = {**self.environment, **names, "D0": Number(0, "b", 64)}
            return viewed(run(self.pseudocode[name], inside, self.pseudocode)["D0"], "f32")
        if name == "f32_to_f16" and self.environment.get("ROUND_MODE") is self.environment["ROUND_TOWARD_ZERO"]:
            return FUNCTIONS[name](*arguments, toward_zero=True)
        return FUNCTIONS[name](*arguments)


def _applied(operator: str, left: Number, right: Number) -> Number:
    if operator in COMPARE:
        return Number(int(COMPARE[operator](left.value, right.value)), "u", 1)
    if operator in ("&&", "||"):
        both = bool(left.value) and bool(right.value)
        return Number(int(both if operator == "&&" else bool(left.value) or bool(right.value)), "u", 1)
    return combined(operator, left, right)


def _literal(token: str) -> Number:
    sized = re.fullmatch(r"(\d+)'(0x[0-9a-fA-F]+|\d+(?:\.\d+)?)[UL]*", token)
    if sized:
        if "." in sized[2]:
            return Number(float(sized[2]), "f", int(sized[1]))
        return Number(int(sized[2], 0), "u", int(sized[1]))
    if "." in token:
        return Number(float(token.rstrip("F")), "f", 32 if token.endswith("F") else 64)
    digits, suffix = re.fullmatch(r"(0x[0-9a-fA-F]+|\d+)([UL]*)", token).groups()  # type: ignore[union-attr]
    return Number(int(digits, 0), "u" if "U" in suffix else "i", 64 if "LL" in suffix or suffix == "L" else 32)
