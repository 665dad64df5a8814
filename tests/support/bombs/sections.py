"""Overlays of patterns, references and entries of every kind that cost as much as a book of 1 MiB can, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from support.bombs.rules import HALF, LIMIT, MOST, RULE, filled, rules

EVIDENCE: Final = "evidence: [x]"
NEED: Final = "{dimension: model_dim, multiple: 2}"
MOST_PATTERNS: Final = 64
MOST_LAYOUTS: Final = 500


def section_bombs() -> Iterator[tuple[str, str]]:
    """Yield texts that load or are refused, each of 1 MiB at most."""
    yield from _patterns()
    yield from _layouts()
    yield from _versions()
    yield from _references()
    yield from _other_entries()
    yield from _text()


def _patterns() -> Iterator[tuple[str, str]]:
    """Regular expressions and layouts."""
    tag = "  t{0}: {{pattern: '{1}', title: z}}\n"
    kinds: dict[str, Callable[[int], str]] = {
        "patterns of counts": lambda i: f"(\\w{{20}}){{{i % 10 + 20}}}",
        "patterns of large counts": lambda i: f"((a{{{i % 9 + 2}}}){{10}}){{10}}",
        "patterns of Unicode": lambda i: f"\\pL{{{i % 50 + 10}}}{i}",
        "patterns of classes": lambda i: "[^\\pL\\pN]" * 30 + str(i),
        "patterns of alternatives": lambda i: "|".join(f"a{i}b{n}" for n in range(250)),
        "patterns of groups": lambda i: "(" * 400 + str(i) + ")" * 400,
        "patterns of long groups": lambda i: "(?:" + "a?" * 900 + ")" + str(i),
        "patterns of stars": lambda i: "(a*)*" * 350 + str(i),
        "wrong patterns": lambda i: f"(?={i})" + "a" * 30,
        "long wrong patterns": lambda i: "(?=a)" + "(a|b)*" * 320 + str(i),
        "wrong patterns of classes": lambda i: "(?=a)" + "[\\w\\d\\s-]" * 180 + str(i),
        "broken patterns": lambda i: "(" * 1900 + str(i),
    }
    for name, pattern in kinds.items():
        yield name, "kernel_tags:\n" + "".join(tag.format(index, pattern(index)) for index in range(MOST_PATTERNS))


def _layouts() -> Iterator[tuple[str, str]]:
    kinds: dict[str, Callable[[int], str]] = {
        "layouts": lambda i: f"e r (k{_letters(i)} c2) -> e k{_letters(i)} r c2",
        "layouts of many axes": lambda i: _line([f"a{_letters(i)}{_letters(n)}{n + 2}" for n in range(20)]),
        "layouts of ones": lambda i: _line([f"a{_letters(i)}{_letters(n)}1" for n in range(20)]),
        "layouts of large numbers": lambda i: _line([f"a{_letters(n)}" + "9" * 20 for n in range(5)]),
        "long layouts": lambda i: _line([f"a{_letters(n)}{n + 2}" for n in range(150)]),
        "layouts of huge numbers": lambda i: _line(["a" + "9" * 900]),
        "wrong layouts": lambda i: f"e ((r) k -> e r k{i}",
        "layouts of arrows": lambda i: "->" * 900 + str(i),
    }
    for name, pattern in kinds.items():
        lines = (f"  l{index}: {{pattern: '{pattern(index)}'}}\n" for index in range(MOST_LAYOUTS))
        yield name, "layouts:\n" + "".join(lines)
    multiple = f"{{pattern: e r k -> e r k, k_multiple: {'9' * 300}}}"
    yield "large K multiples", filled("layouts:\n", lambda i: f"  l{i}: {multiple}\n", MOST_LAYOUTS)
    one = _line([f"a{_letters(n)}{n + 2}" for n in range(20_000)])
    yield "one long layout", f"layouts:\n  l: {{pattern: '{one}'}}\n"


def _versions() -> Iterator[tuple[str, str]]:
    yield (
        "versions",
        filled(
            "features:\n",
            lambda i: f"  f{i}: {{title: a, since: 0.{i}.{i}.post{i}.dev{i}, until: 1.{i}, evidence: [x]}}\n",
        ),
    )
    yield (
        "long versions",
        filled("features:\n", lambda i: f"  f{i}: {{title: a, since: {'1.' * 60}{i}, evidence: [x]}}\n"),
    )
    yield (
        "versions of letters",
        filled("features:\n", lambda i: f"  f{i}: {{title: a, since: '1.0+{'a1.' * 40}b', evidence: [x]}}\n"),
    )


def _letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def _line(atoms: list[str]) -> str:
    inner = " ".join(atoms)
    return f"e r (k {inner}) -> e r k {inner}"


def _references() -> Iterator[tuple[str, str]]:
    """Entries that refer to entries, known and unknown."""
    yield "a cycle of bases", filled("model_types:\n", lambda i: f"  t{i}: {{like: t{(i + 1) % 4900}}}\n", 4_900)
    yield (
        "chains of 32 bases",
        filled(
            "model_types:\n",
            lambda i: f"  t{i}: {{like: t{i + 1}}}\n" if i % 32 < 31 else f"  t{i}: {{like: gpt_oss}}\n",
        ),
    )
    yield "all like one", filled("model_types:\n", lambda i: f"  t{i}: {{like: gpt_oss}}\n")
    yield "unknown features", filled("rules:\n", lambda i: RULE.format(i, f"model: a{i}", f"unknown{i}"))
    families = "  f{0}: {{stage: '1', funcs: [f], grammar: '^a{1}$', variants: [{{reads: {{}}}}]}}\n"
    yield "families", filled("kernel_families:\n", lambda i: families.format(i, i))
    yield "families of one name", filled("kernel_families:\n", lambda i: families.format(i, ""))
    reads = "  f{0}: {{stage: '1', funcs: [f], grammar: '^a{0}$', variants: [{{reads: {{w13_weight: l{0}}}}}]}}\n"
    yield "families of unknown layouts", filled("kernel_families:\n", lambda i: reads.format(i))
    yield (
        "families of unknown GPUs",
        filled("kernel_families:\n", lambda i: families.format(i, i).replace("funcs:", f"archs: [gfx{i}], funcs:")),
    )
    yield (
        "needs of unknown families",
        filled(
            "kernel_needs:\n",
            lambda i: f"  n{i}: {{families: [f{i}], needs: [{NEED}], because: a, {EVIDENCE}}}\n",
        ),
    )
    yield "packings of unknown layouts", filled("packings:\n", lambda i: f"  p{i}: {{title: a, under: l{i}}}\n")
    labels = "  l{0}: {{pattern: a{0}, families: {{'1': f{0}}}, evidence: [x]}}\n"
    yield "labels of unknown families", filled("kernel_labels:\n", lambda i: labels.format(i))
    yield (
        "unknown types of fusions",
        filled(
            "fusions:\n",
            lambda i: f"  f{i}: {{when: {{engine: vllm, model_type: t{i}}}, outcome: fused, because: a, {EVIDENCE}}}\n",
        ),
    )
    types = filled("model_types:\n", lambda i: f"  t{i}: {{like: gpt_oss}}\n", 2_400)
    yield (
        "fusions of all types",
        types
        + filled(
            "fusions:\n",
            lambda i: (
                f"  f{i}: {{when: {{engine: e{i}, model_type: [{','.join(f't{n}' for n in range(i, i + 200))}]}}, "
                f"outcome: fused, because: a, {EVIDENCE}}}\n"
            ),
            500,
            HALF,
        ),
    )


def _other_entries() -> Iterator[tuple[str, str]]:
    """Many good entries of each kind."""
    fusion = "  f{0}: {{when: {{engine: vllm, tp: '{1}'}}, outcome: fused, because: a, evidence: [x]}}\n"
    yield "fusions of ranges", filled("fusions:\n", lambda i: fusion.format(i, f">{i % 4000}"))
    yield (
        "fusions of globs",
        filled("fusions:\n", lambda i: fusion.format(i, "1").replace("tp: '1'", f"model: '*{'a*' * 40}{i}'")),
    )
    contract = "  c{0}: {{code: unsupported, refuses: true, says: a, fix: b, evidence: [x], when: {{{1}}}}}\n"
    yield "contracts that refuse", filled("contracts:\n", lambda i: contract.format(i, f"hidden_size: {i + 1}"))
    yield (
        "contracts and rules",
        filled("contracts:\n", lambda i: contract.format(i, f"tp: '>{i}'"), 2_400)
        + rules(lambda i: f"model: a{i}, arch: gfx950, weight_dtype: fp4x2", 2_400),
    )
    yield "remainders", filled("contracts:\n", lambda i: contract.format(i, f"'inter_dim % {i + 2}': 1"))
    yield "large remainders", filled("contracts:\n", lambda i: contract.format(i, f"'inter_dim % {'9' * 4000}': 1"))
    yield "huge remainders", filled("contracts:\n", lambda i: contract.format(i, f"'inter_dim % {'9' * 9000}': 1"))
    yield "unknown facts", filled("contracts:\n", lambda i: contract.format(i, f"fact{i}: 1"))
    yield "layouts that are never", filled("contracts:\n", lambda i: contract.format(i, f"w13_layout: l{i}"))
    flag = "  F{0}: {{owner: vllm, meaning: z, affects: [], values: {{{1}}}, also: [{2}]}}\n"
    yield (
        "values of switches",
        filled("flags:\n", lambda i: flag.format(i, ",".join(f"'{n}': a" for n in range(200)), "x")),
    )
    yield (
        "switches and readers",
        flag.format(0, "", ",".join(f"e{n}" for n in range(500))).join(("flags:\n", ""))
        + rules(
            lambda i: f"engine: [{','.join(f'q{n}' for n in range(400))}], env: {{F0: '{i}'}}", MOST, LIMIT - 5_000
        ),
    )
    yield "models", filled("models:\n", lambda i: f"  m{i}: {{hidden_size: 64, num_experts: 8}}\n")
    yield "model types", filled("model_types:\n", lambda i: f"  t{i}: {{fields: {{hidden_size: [a{i}]}}}}\n")
    yield (
        "backends",
        filled(
            "backends:\n",
            lambda i: f"  b{i}: {{title: a, variants: [{{reads: {{w13_weight: [plain]}}}}], {EVIDENCE}}}\n",
        ),
    )
    yield (
        "every kind",
        "".join(
            filled(f"{name}:\n", lambda i: f"  x{i}: {{}}\n", 500)
            for name in ("layouts", "archs", "engines", "features", "flags", "models", "recipes", "rules", "fusions")
        ),
    )
    recipe = (
        "  r{0}: {{tensors: {{w13_weight: {{layout: sep16, dtype: fp8}}, w2_weight: {{layout: sep16, dtype: fp8}}}}, "
        "call: {{gate_mode: separated, quant_type: per_Tensor}}}}\n"
    )
    yield "recipes", filled("recipes:\n", lambda i: recipe.format(i))
    yield "recipes of unknown layouts", filled("recipes:\n", lambda i: recipe.format(i).replace("sep16", f"l{i}"))
    yield (
        "wrong recipes",
        filled("recipes:\n", lambda i: recipe.format(i).replace("fp8", "i4x2").replace("per_T", "per_1x32_T")),
    )


def _text() -> Iterator[tuple[str, str]]:
    """YAML itself."""
    yield "directives", "".join(f"%TAG !a{n}! tag:x{n}:\n" for n in range(35_000)) + "---\nrules: {}\n"
    yield "short directives", "".join(f"%TAG !{n}! x\n" for n in range(60_000)) + "---\nrules: {}\n"
    yield "other directives", "%Y x\n" * 200_000 + "---\nrules: {}\n"
    yield "keys of flow", "{" * 60 + "a: b, " * 150_000
    yield "keys without values", "rules: {" + "? a, " * 150_000 + "}"
    yield "wide indents", "rules:\n" + "".join(f"{' ' * 5000}r{n}: 1\n" for n in range(200))
    yield "folded text", "rules: >\n" + "  x\n\n" * 200_000
    yield "quoted lines", "rules: 'x" + "\n\n  y" * 180_000 + "'\n"
    yield "timestamps", "rules: [" + "2001-01-01 01:01:01.5 +01:00," * 33_000 + "]"
    yield "infinities", "rules: [" + ".inf,-.inf,.nan," * 20_000 + "]"
    yield "octals", "rules: [" + "0777777777,0b1010101,0xffffffff," * 20_000 + "]"
    yield "underscores", "rules: [" + ("1" + "_" * 390 + "1,") * 2_600 + "]"
    yield "bad characters", "rules: " + "\x01" * 500_000
    yield "wide characters", "rules: {" + "".join(f"\U0001f600{n}: 1, " for n in range(60_000)) + "}"
