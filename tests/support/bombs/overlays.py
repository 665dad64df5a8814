"""Overlays made to cost as much as a book of 1 MiB can, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LIMIT: Final = 1 << 20
RULE: Final = (
    "  r{0}:\n    when: {{model: acme/m{0}, arch: gfx950, weight_dtype: fp4x2, activation_dtype: fp4x2}}\n"
    "    use: mxfp4.gui16\n    because: test\n"
)


def good_rules(count: int) -> str:
    """Return an overlay of rules that load."""
    return "rules:\n" + "".join(RULE.format(index) for index in range(count))


def bad_keys(count: int) -> str:
    """Return one entry with many unknown fields."""
    return "rules:\n  r:\n" + "".join(f"    k{index}: 1\n" for index in range(count))


def bombs() -> Iterator[tuple[str, str]]:
    """Yield texts that must be refused, each of 1 MiB at most."""
    yield "bad keys of one entry", bad_keys(60_000)
    yield "bad entries", "rules:\n" + "".join(f"  r{index}: 1\n" for index in range(60_000))
    yield "entries with a bad key", "rules:\n" + "".join(f"  r{index}: {{k: 1}}\n" for index in range(45_000))
    yield "bad sections", "".join(f"s{index}: {{}}\n" for index in range(60_000))
    yield (
        "bad conditions",
        "rules:\n" + "".join(f"  r{index}: {{when: {{x: 1}}, use: y, because: z}}\n" for index in range(20_000)),
    )
    yield (
        "one entry's conditions",
        "rules:\n  r:\n    when:\n" + "".join(f"      k{index}: 1\n" for index in range(50_000)),
    )
    yield "a key twice", "rules:\n" + "  r: {}\n" * 100_000
    yield "aliases", "a: &a [x]\n" + "".join(f"b{index}: *a\n" for index in range(60_000))
    yield (
        "laughs",
        "a0: &a0 [x,x,x,x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i},*a{i},*a{i},*a{i}]\n" for i in range(30)),
    )
    yield "merges", "a: &a {x: 1}\n" + "".join(f"b{index}: {{<<: *a}}\n" for index in range(40_000))
    yield "deep lists", "a: " + "[" * 500_000
    yield "deep objects", "{a: " * 200_000
    yield "deep blocks", "".join(" " * index + "a:\n" for index in range(1_400))
    yield "dashes", "- " * 500_000
    yield "question marks", "? " * 500_000
    yield "long scalar", "rules: " + "x" * (LIMIT - 100)
    yield "long quoted", 'rules: "' + "\\x41" * 250_000 + '"'
    yield "long number", "rules: " + "9" * (LIMIT - 100)
    yield "long sexagesimal", "rules: " + "1:30" * 200_000
    yield "many numbers", "rules: [" + "1:30," * 180_000 + "]"
    yield "long numbers", "rules: [" + ",".join(["9" * 5000] * 200) + "]"
    yield "long floats", "rules: [" + ",".join(["1" * 4000 + ".5e999"] * 200) + "]"
    yield "dates", "rules: [" + "2001-01-01," * 90_000 + "]"
    yield "many documents", "---\na: 1\n" * 100_000
    yield "many tags", "rules: [" + "!!int x," * 120_000 + "]"
    yield "unknown tags", "rules: [" + "!x y," * 170_000 + "]"
    yield "comments", "#\n" * 500_000 + "x: 1"
    yield "anchors", "rules: [" + "".join(f"&a{index} x," for index in range(100_000)) + "]"
    yield "binary", "rules: !!binary " + "A" * (LIMIT - 100)
    yield "sets", "rules: !!set {" + ",".join(f"a{index}" for index in range(100_000)) + "}"
    yield "colons", "rules: {" + "a: {" * 60 + "}" * 60 + "}" + "\n x" * 300_000
    yield (
        "unknown bases",
        "model_types:\n" + "".join(f"  t{index}: {{like: nothing{index}, evidence: [x]}}\n" for index in range(15_000)),
    )
    yield (
        "a chain of bases",
        "model_types:\n" + "".join(f"  t{index}: {{like: t{index + 1}, evidence: [x]}}\n" for index in range(15_000)),
    )
    yield (
        "unknown recipes",
        "rules:\n" + "".join(RULE.format(index).replace("mxfp4.gui16", f"mine{index}") for index in range(7_000)),
    )
    globs = [
        f"  r{index}: {{when: {{model: '{'*a' * 60}*{index}', arch: gfx950}}, use: mxfp4.gui16, because: z}}\n"
        for index in range(4_500)
    ]
    yield "globs", "rules:\n" + "".join(globs)
    patterns = [f"  r{index}: {{pattern: '(a+)+{index}b', title: z}}\n" for index in range(20_000)]
    yield "patterns", "kernel_tags:\n" + "".join(patterns)
    yield (
        "large patterns",
        "kernel_tags:\n"
        + "".join(
            f"  r{index}: {{pattern: '(\\w{{20}}){{{index % 50 + 20}}}', title: z}}\n" for index in range(15_000)
        ),
    )
