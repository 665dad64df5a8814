"""Overlays of rules, lists and names that cost as much as a book of 1 MiB can, by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

LIMIT: Final = 1 << 20
HALF: Final = LIMIT // 2
MOST: Final = 4_990
RULE: Final = "  r{0}: {{when: {{{1}}}, use: {2}, because: z}}\n"
USE: Final = "mxfp4.gui16"


def filled(head: str, item: Callable[[int], str], most: int = MOST, size: int = LIMIT) -> str:
    """Return as many numbered items behind a head as a file takes, and a book."""
    parts, left = [head], size - len(head)
    for index in range(most):
        part = item(index)
        left -= len(part.encode())
        if left < 0:
            break
        parts.append(part)
    return "".join(parts)


def rules(when: Callable[[int], str], most: int = MOST, size: int = LIMIT) -> str:
    """Return rules with numbered conditions."""
    return filled("rules:\n", lambda index: RULE.format(index, when(index), USE), most, size)


def numbers(count: int, start: int = 1) -> str:
    """Return a YAML list of numbers."""
    return "[" + ",".join(map(str, range(start, start + count))) + "]"


def entry_bombs() -> Iterator[tuple[str, str]]:
    """Yield texts that load or are refused, each of 1 MiB at most."""
    yield from _pairs_of_rules()
    yield from _lists()
    yield from _names()


def _pairs_of_rules() -> Iterator[tuple[str, str]]:
    """Rules that have to be compared with each other."""
    globs = {
        "globs that end apart": lambda i: f"model: '{'*a' * 50}*b{i}c'",
        "globs that begin apart": lambda i: f"model: 'b{i}{'*a' * 50}*'",
        "globs apart in the middle": lambda i: f"model: 'a?{i}?b'",
        "short globs": lambda i: f"model: '*{i}x'",
        "globs of question marks": lambda i: f"model: '{'?' * (i % 100 + 1)}{i}'",
        "globs of stars and marks": lambda i: f"model: '{'*?' * 40}{i}'",
        "globs of two fields": lambda i: f"model: 'a{i}*', deployment: '*{i}b'",
        "globs that are the same": lambda i: f"model: 'a*b', priority: {i}" if i < 0 else "model: 'a*b'",
    }
    for name, when in globs.items():
        yield name, rules(when)
    yield "ranges that overlap", rules(lambda i: f"hidden_size: '>{i}', arch: gfx950")
    yield "ranges apart", rules(lambda i: f"hidden_size: '>={10 * i + 1},<{10 * i + 9}', arch: gfx950")
    yield "ranges of versions", rules(lambda i: f"aiter: '>=0.{i}.1,<0.{i}.2'")
    yield (
        "ranges of many sizes",
        rules(lambda i: ", ".join(f"{name}: '>{i % 4000 + 1}'" for name in ("tp", "ep", "dp", "top_k", "num_experts"))),
    )
    yield "long ranges", rules(lambda i: f"hidden_size: '{','.join(f'>{n}' for n in range(1, 2000))}'")
    yield (
        "rules that cover rules",
        filled(
            "rules:\n",
            lambda i: f"  r{i}: {{when: {{tp: '>{i % 4000 + 1}'}}, priority: {i}, use: {USE}, because: z}}\n",
        ),
    )
    yield (
        "exact rules beside lists",
        rules(lambda i: f"model: m{i}, tp: 2" if i % 2 else f"model: [m{i}, n{i}], tp: [2, 4]"),
    )
    for count in (8, 64, 256):
        fields = ("tp", "ep", "dp", "top_k", "num_experts", "hidden_size", "intermediate_size", "cu_num")
        shared = ", ".join(f"{name}: {numbers(count)}" for name in fields)
        yield f"rules of {count} values in each field", rules(partial("model: m*{1}, {0}".format, shared))
    yield (
        "rules of lists in turn",
        rules(lambda i: ", ".join(f"{name}: {numbers(30, 1 + i % 7 * 20)}" for name in ("tp", "ep", "dp", "top_k"))),
    )
    yield "rules on switches", rules(lambda i: f"env: {{VLLM_ROCM_USE_AITER: '{i}'}}")
    yield "rules of nothing", rules(lambda i: "")
    yield (
        "one rule's products of sizes",
        rules(
            lambda i: (
                f"hidden_size: {numbers(250, 33 + i)}, intermediate_size: {numbers(250, 77)}, tp: {numbers(250, 2)}, "
                "weight_dtype: [fp8, bf16, fp16, i4x2, i8]"
            ),
        ),
    )


def _lists() -> Iterator[tuple[str, str]]:
    """Lists and mappings that are long."""
    yield "a condition of many values", rules(lambda i: "model: [" + ",".join(f"m{n}" for n in range(120_000)) + "]", 1)
    yield "conditions of many models", rules(lambda i: f"model: [{','.join(f'm{i}x{n}' for n in range(500))}]")
    yield "conditions of many versions", rules(lambda i: f"aiter: [{','.join(f'0.{i}.{n}' for n in range(400))}]")
    yield "conditions of few versions", rules(lambda i: f"aiter: [{','.join(f'0.{i}.{n}' for n in range(60))}]")
    yield "conditions of wrong versions", rules(lambda i: f"aiter: [{','.join(f'v{i}!{n}' for n in range(60))}]")
    yield "conditions of unknown GPUs", rules(lambda i: f"arch: [{','.join(f'gfx{i}q{n}' for n in range(200))}]")
    yield "conditions of products", rules(lambda i: f"arch: [{','.join(['MI300X', 'MI355X', 'mi325x'] * 70)}]")
    yield "many switches of a rule", rules(lambda i: "env: {" + ",".join(f"S{n}: '1'" for n in range(50_000)) + "}", 1)
    yield "switches of rules", rules(lambda i: "env: {" + ",".join(f"S{i}X{n}: '1'" for n in range(200)) + "}")
    yield "much evidence", filled("rules:\n  r:\n    evidence:\n", lambda i: f"    - x{i}\n")
    yield "many aliases", filled("models:\n  m:\n    aliases:\n", lambda i: f"    - x{i}\n")
    yield "many globs of aliases", filled("models:\n  m:\n    aliases:\n", lambda i: f"    - '*x{i}'\n")
    yield "many steps of pads", (
        "recipes:\n  r:\n    tensors:\n      w13_weight: {layout: plain, dtype: fp8, pad: {k: ["
        + ",".join(f"{{upto: {n}, to: 1}}" for n in range(1, 30_000)) + "]}}\n"
    )  # fmt: skip
    yield "many wrong steps of pads", (
        "recipes:\n  r:\n    tensors:\n      w13_weight: {layout: plain, dtype: fp8, pad: {k: ["
        + ",".join("x" for n in range(1, 60_000)) + "]}}\n"
    )  # fmt: skip
    yield "many wrong items", "models:\n  m: {tp_seen: [" + ",".join("x" for _ in range(60_000)) + "]}\n"
    yield (
        "many wrong values",
        ("model_types:\n  m: {fields: {" + ",".join(f"f{n}: 1" for n in range(50_000)) + "}, evidence: [x]}\n"),
    )
    yield "unless without end", (
        "contracts:\n  c: {code: unsupported, says: a, fix: b, evidence: [x], when: {arch: gfx950}, unless: ["
        + ",".join("{tp: 1}" for _ in range(60_000)) + "]}\n"
    )  # fmt: skip
    yield "one_of without end", (
        "fusions:\n  f: {when: {engine: vllm}, outcome: fused, because: z, evidence: [x], one_of: ["
        + ",".join("{tp: 1}" for _ in range(60_000)) + "]}\n"
    )  # fmt: skip
    yield "requirements", filled("recipes:\n  r:\n    requires:\n      arch:\n", lambda i: f"      - feature{i}\n")
    yield "nothing but null", "rules: {" + ",".join(f"r{n}: null" for n in range(65_000)) + "}"


def _names() -> Iterator[tuple[str, str]]:
    """Names that are compared with names."""
    model = "  m{0}: {{aliases: ['{1}'], hidden_size: 64}}\n"
    yield (
        "globs of aliases and rules",
        filled("models:\n", lambda i: model.format(i, f"*q{i}*w"), 2_400) + rules(lambda i: f"model: acme/x{i}", 2_400),
    )
    yield (
        "aliases of stars",
        filled("models:\n", lambda i: model.format(i, "*a" * 400 + str(i)), 500)
        + rules(lambda i: f"model: {'a' * 100}{i}", 2_000),
    )
    yield (
        "long aliases of stars",
        filled("models:\n", lambda i: model.format(i, "*a" * 50_000 + str(i)), 5)
        + rules(lambda i: f"model: {'a' * 100}{i}", 2_000),
    )
    yield (
        "aliases with brackets",
        filled("models:\n", lambda i: model.format(i, f"[a-z]*[0-9]{i}"), 2_400)
        + rules(lambda i: f"model: acme/x{i}", 2_400),
    )
    yield "one alias twice", filled("models:\n", lambda i: model.format(i, "same"))
    letters = itertools.permutations("abcdefgh")
    yield (
        "anagrams of recipes",
        filled("recipes:\n", lambda i: f"  xy{''.join(next(letters)) * 12}: {{tensors: {{}}, call: {{}}}}\n", 4_000),
    )
    letters = itertools.permutations("abcdefgh")
    flags = filled(
        "flags:\n", lambda i: f"  xy{''.join(next(letters)) * 11}: {{owner: vllm, meaning: z, affects: []}}\n", 2_400
    )
    letters = itertools.permutations("hgfedcba")
    yield "anagrams of switches", flags + rules(lambda i: f"env: {{xy{''.join(next(letters)) * 11}: '1'}}", 2_400, HALF)
    letters = itertools.permutations("abcdefgh")
    types = filled("model_types:\n", lambda i: f"  zz{''.join(next(letters)) * 6}: {{like: gpt_oss}}\n", 2_400)
    yield (
        "anagrams of bases",
        types + filled("", lambda i: f"  t{i}: {{like: zz{''.join(next(letters)) * 6}}}\n", 2_400),
    )
    products = [f"P{n}" for n in range(510)]
    arch = "archs:\n  gfx777: {fp8: null, products: [" + ",".join(products) + "]"
    yield "many products", arch + ", aliases: {" + ",".join(f"{p}: [a{p}]" for p in products) + "}}\n"
    units = ", cu_num: {" + ",".join(f"{p}: {n + 1}" for n, p in enumerate(products)) + "}}\n"
    yield "products and conditions", arch + units + rules(lambda i: f"arch: [{','.join(products)}]", MOST, HALF)
    yield (
        "GPUs",
        filled("archs:\n", lambda i: f"  gfx7{i:05}: {{fp8: null, products: [P{i}]}}\n", 2_400)
        + rules(lambda i: "tp: 2", 2_400),
    )
    yield "one product of many GPUs", filled("archs:\n", lambda i: f"  gfx7{i:05}: {{fp8: null, products: [P]}}\n")
    others = filled("other_gpus:\n", lambda i: f"  o{i}: {{title: t, says: s, patterns: ['*a{i}*']}}\n", 2_400)
    yield "other GPUs", others + rules(lambda i: f"arch: q{i}", 2_400)
    yield "long ids", filled("rules:\n", lambda i: f"  {'x' * 100_000}{i}: {{when: 1, k1: 1, k2: 1, k3: 1}}\n")
    yield "a long id", "rules:\n  ? " + "x" * 900_000 + "\n  : {when: 1, k1: 1, k2: 1, k3: 1}\n"
    yield "a long id of a recipe", (
        f"kernel_families:\n  ? {'x' * 400_000}\n  : {{stage: '1', funcs: [a], grammar: a, archs: ["
        + ",".join(f"a{n}" for n in range(40_000)) + "], variants: [{reads: {}}]}\n"
    )  # fmt: skip
    yield "long keys", filled("rules:\n  r:\n", lambda i: f"    ? {'k' * 50_000}{i}\n    : 1\n")
