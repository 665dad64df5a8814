"""The book: every way in which a file can be wrong has its place and says what would be valid; overlays."""

from pathlib import Path

import pytest

from preshuffle.registry import BookError, Registry
from preshuffle.registry.base.errors import Problem
from preshuffle.registry.lint.book import lint
from preshuffle.registry.loading.book import Book
from preshuffle.registry.loading.load import SECTIONS, load_book
from support.book.strategies import BOOK, decide, load_overlay

SECTION_NAMES = ", ".join(SECTIONS)
RULE_FIELDS = "when, use, shard, indivisible, priority, because, evidence, since, until"
MINE = """rules:
  mine:
    when: {arch: gfx950, tp: 3}
    use: mxfp4.sep16
    because: a test
    evidence: [https://example.com]
"""


def problems_of(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(BookError) as caught:
        load_overlay(folder, text)
    assert {problem.file for problem in caught.value.problems} == {str(folder / "overlay.yaml")}
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return caught.value.problems


def test_deep_nesting_is_one_problem(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "rules: " + "[" * 100_000)
    assert problem.message.startswith("not valid YAML: ")  # newer parsers have a limit of their own


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("rules:\n\tr: 1\n", "2:1", "not valid YAML: found character that cannot start any token"),
        ("rules: [1\n", "2:1", "not valid YAML: did not find expected ',' or ']'"),
        ("rules: {}\n---\nflags: {}\n", "2:1", "not valid YAML: a second document begins here"),
        ("rules: {}\n# fine\n  \x07\n", "3:3", "not valid YAML: unacceptable character #x0007: control characters "),
        ("rules: " + "[" * 70 + "]" * 70, "1:71", "not valid YAML: nested deeper than 64"),
        ("rules: " + "[" * 900, "1:71", "not valid YAML: nested deeper than 64"),
        ("rules: !!python/object:os.system x\n", "1:8", "not valid YAML: could not determine a constructor"),
        ("rules: {r: {priority: 2020-99-99}}\n", "1:23", "'2020-99-99' is not a valid timestamp"),
        ("rules: {r: {priority: !!int abc}}\n", "1:23", "'abc' is not a valid int"),
        ("rules: {r: {priority: !!bool abc}}\n", "1:13", "priority: input should be a valid integer"),
        (f"rules: {{r: {{priority: {'9' * 5000}}}}}\n", "1:23", "'9999"),
        ("rules:\n  r: &a {}\nflags:\n  f: *a\n", "4:6", "aliases are not allowed; write the value out"),
        ("rules:\n  r: {<<: {use: x}}\n", "2:7", "a key must be plain text"),
        ("rules:\n  ? [a]\n  : 1\n", "2:5", "a key must be plain text"),
        ("rules: {}\nflags: {}\nrules: {}\n", "3:1", "duplicate key 'rules', first at line 1"),
        (MINE + "    use: x\n", "7:5", "duplicate key 'use', first at line 4"),
        (MINE + MINE.removeprefix("rules:\n"), "7:3", "duplicate key 'mine', first at line 2"),
        ("- a\n", "1:1", f"a book file is a mapping of sections; valid: {SECTION_NAMES}"),
        ("words\n", "1:1", f"a book file is a mapping of sections; valid: {SECTION_NAMES}"),
        ("\nrulez: {}\n", "2:1", f"unknown section 'rulez'; valid: {SECTION_NAMES}"),
        ("rules: 7\n", "1:1", "rules is a mapping of ids to entries"),
        ("rules:\n  r:\n", "2:3", f"r needs fields, found None; valid: {RULE_FIELDS}"),
        ("rules:\n  r: [1]\n", "2:3", f"r needs fields, found [1]; valid: {RULE_FIELDS}"),
        ("rules:\n  r: {id: r}\n", "2:7", "the id is the entry's key; leave this field out"),
        (MINE + "    usee: x\n", "7:5", f"usee: unknown field; valid: {RULE_FIELDS}"),
        (MINE.replace("    use: mxfp4.sep16\n", ""), "2:3", "use: missing"),
        (MINE.replace("mxfp4.sep16", "[x]"), "4:5", "use: input should be a valid string, found ['x']"),
        (MINE.replace("a test", '""'), "5:5", "because: string should have at least 1 character, found ''"),
        (MINE.replace("[https://example.com]", "3"), "6:5", "evidence: input should be a valid tuple"),
        (MINE + "    priority: 1.5\n", "7:5", "priority: input should be a valid integer, got a number with a frac"),
        (
            "layouts:\n  l: {title: t, pattern: e n k -> e k, evidence: [x]}\n",
            "2:17",
            "pattern: pattern 'e n k -> e k'",
        ),
        (
            "features:\n  f: {title: t, since: soon, evidence: [x]}\n",
            "2:17",
            "since: 'soon' is not a version (PEP 440)",
        ),
        ("models:\n  m: {hidden_size: -1, evidence: [x]}\n", "2:7", "hidden_size: input should be greater than or eq"),
        ("models:\n  m: {hidden_size: true, evidence: [x]}\n", "2:7", "hidden_size: a number is needed, found True"),
        ("models:\n  m: {top_k: 1e400, evidence: [x]}\n", "2:7", "top_k: input should be a valid integer"),
        (b"rules: {}\n# \xff\xfe\n", "1:1", "cannot be read: not UTF-8 at byte 12"),
        ("rules: {}\n".encode("utf-16"), "1:1", "cannot be read: not UTF-8 at byte 0"),
    ],
)
def test_the_first_problem_has_its_exact_place(tmp_path: Path, text: str | bytes, place: str, message: str) -> None:
    by_place = {f"{item.line}:{item.column}": str(item) for item in reversed(problems_of(tmp_path, text))}
    assert by_place.get(place, f"nothing at {place}, only {by_place}").startswith(
        f"{tmp_path / 'overlay.yaml'}:{place}: {message}"
    )


def test_wrong_values_deep_in_a_recipe_are_found_where_they_stand(tmp_path: Path) -> None:
    text = """recipes:
  mine:
    title: t
    tensors:
      w13_weight: {layout: sep16, padd: {rows: 16}, dtype: fp4x2}
      w2_weight: {layout: sep16, pad: {rows: 0}, fill: 256, dtype: fp5}
      w4_weight: {layout: sep16, dtype: fp4x2}
    call: {gate_mode: seperated, quant_type: per_1x32}
    migration_safe: perhaps
    supports_lora: false
    suits: x
    evidence: [x]
"""
    found = {(item.line, item.column, item.message.split(":")[0]) for item in problems_of(tmp_path, text)}
    assert found == {
        (5, 35, "tensors.w13_weight.padd"),
        (6, 40, "tensors.w2_weight.pad.rows"),
        (6, 50, "tensors.w2_weight.fill"),
        (6, 61, "tensors.w2_weight.dtype"),
        (7, 7, "tensors.w4_weight.[key]"),
        (8, 12, "call.gate_mode"),
        (9, 5, "migration_safe"),
    }


@pytest.mark.parametrize(("word", "value"), [("No", "No"), ("per_Token", "per_Token"), ("'No'", "No")])
def test_aiters_no_is_a_word_and_not_a_boolean(tmp_path: Path, word: str, value: str) -> None:
    text = f"models:\n  m: {{quant_type: {word}, bias: false, gated: True, evidence: [x]}}\n"
    entry = load_overlay(tmp_path, text).book.models["m"]
    assert (entry.quant_type, entry.bias, entry.gated) == (value, False, True)


@pytest.mark.parametrize("role", ["w13_weight", "w2_weight"])
def test_a_recipe_needs_both_weights(tmp_path: Path, role: str) -> None:
    other = "w2_weight" if role == "w13_weight" else "w13_weight"
    text = f"""recipes:
  mine:
    title: t
    tensors: {{{other}: {{layout: sep16, dtype: fp4x2}}}}
    call: {{gate_mode: separated, quant_type: per_1x32}}
    migration_safe: true
    supports_lora: false
    suits: x
    evidence: [x]
"""
    (problem,) = problems_of(tmp_path, text)
    assert (problem.line, problem.column) == (4, 5)
    assert problem.message.startswith(f"tensors: {role} is missing")


def test_several_problems_in_several_files_are_all_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rulez: {}\nrules:\n  r: {foo: 1}\n")
    (tmp_path / "b.yml").write_text("flags: [\n")
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    with pytest.raises(BookError) as caught:
        Registry.load([tmp_path, tmp_path / "nowhere"])
    named = [Path(problem.file).name for problem in caught.value.problems]
    assert set(named) == {"a.yaml", "b.yml", "c.yaml", "nowhere"}
    assert named.count("a.yaml") == 5  # the section, the unknown field, and three that are missing


def test_what_design_says_of_an_entry_is_enough(tmp_path: Path) -> None:
    text = 'layouts:\n  mine: {pattern: "e (nt n16) (kt k16) -> e nt kt n16 k16", unit: byte, k_multiple: 32}\n'
    assert load_overlay(tmp_path, text).book.layout("mine").k_multiple == 32


def test_packaged_entries_have_evidence() -> None:
    bare = BOOK.layouts["e8"].model_copy(update={"evidence": ()})
    book = Book({**BOOK.entries, "layouts": {**BOOK.layouts, "e8": bare}}, BOOK.places)
    assert [problem.message for problem in lint(book)] == ["e8 has no evidence; a URL is needed"]


def test_an_id_stands_once_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(MINE)
    with pytest.raises(BookError) as caught:
        Registry.load([tmp_path])
    (problem,) = caught.value.problems
    assert str(problem) == f"{tmp_path}/b.yaml:2:3: duplicate id 'mine' in rules, first at {tmp_path}/a.yaml:2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such file or folder; valid: a folder with *.yaml files, or one YAML file"),
        ("empty", "no *.yaml in this folder; valid: a folder with *.yaml files, or one YAML file"),
        ("x" * 5000, "cannot be read: File name too long"),
    ],
)
def test_an_overlay_that_is_not_there(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BookError) as caught:
        Registry.load([tmp_path / name])
    assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_a_folder_that_looks_like_a_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "book.yaml").mkdir()
    with pytest.raises(BookError, match="cannot be read: Is a directory"):
        Registry.load([tmp_path])


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "rules: {}\n", "\ufeffrules: {}\n", "rules: &a {}\r\n"])
def test_an_overlay_may_be_empty(tmp_path: Path, text: str) -> None:
    assert load_overlay(tmp_path, text).digest == BOOK.digest


def test_one_overlay_may_be_given_as_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    assert "mine" in Registry.load(str(path)).book.rules


def test_overlays_add_entries_and_replace_whole_entries_by_id(tmp_path: Path) -> None:
    (tmp_path / "add.yaml").write_text(MINE)
    replaced = MINE.replace("mine:", "gpt-oss.a16w4.gfx950:").replace("tp: 3", "tp: 5")
    (tmp_path / "replace.yaml").write_text(replaced)
    registry = Registry.load([tmp_path / "add.yaml", tmp_path / "replace.yaml"])
    assert set(registry.book.rules) == {*BOOK.rules, "mine"}
    assert decide(registry, tp=3).rule == "mine"
    assert registry.book.rules["gpt-oss.a16w4.gfx950"].when == {"arch": "gfx950", "tp": 5}
    assert BOOK.rules["gpt-oss.a16w4.gfx950"].when != {"arch": "gfx950", "tp": 5}


def test_the_packaged_entries_are_validated_once_and_no_overlay_changes_them(tmp_path: Path) -> None:
    before = Registry.load().book
    recipe = next(iter(before.recipes.values()))
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("layouts:\n  sep16: {title: ours, pattern: 'e n k -> e n k', evidence: [https://e.example]}\n")
    changed = load_book([overlay])
    assert changed.recipes[recipe.id] is recipe
    assert (changed.layouts["sep16"].title, changed.place_of("layouts", "sep16").packaged) == ("ours", False)
    after = Registry.load().book
    assert after.entries is not before.entries
    assert after.layouts["sep16"] is before.layouts["sep16"]
    assert after.place_of("layouts", "sep16").packaged
    assert (after.digest, after.sources, list(after.entries)) == (before.digest, before.sources, list(before.entries))


def test_later_overlays_win(tmp_path: Path) -> None:
    paths = []
    for name, use in (("a", "mxfp4.sep16"), ("b", "mxfp4.gui16")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text(MINE.replace("mxfp4.sep16", use))
        paths.append(tmp_path / name)
    assert Registry.load(paths).book.rules["mine"].use == "mxfp4.gui16"
    assert Registry.load(paths[::-1]).book.rules["mine"].use == "mxfp4.sep16"


def test_a_layout_that_an_overlay_adds_needs_no_code(tmp_path: Path) -> None:
    text = 'layouts:\n  mine: {title: t, pattern: "e (nt n4) k -> e nt k n4", unit: byte, evidence: [x]}\n'
    bound = load_overlay(tmp_path, text).book.layout("mine").bind(1, 8, 3)
    assert [bound.source(address) for address in range(5)] == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 0, 1)]


def test_neither_the_environment_nor_the_working_directory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "x.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRESHUFFLE_BOOK", str(tmp_path / "book"))
    assert Registry.load().digest == BOOK.digest


def test_a_file_past_a_mebibyte_is_refused_unread(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "# " + "x" * (1 << 20))
    assert str(problem) == f"{tmp_path / 'overlay.yaml'}:1:1: 1,048,578 bytes; a book file has at most 1,048,576"
