"""What an answer says of an engine whose name or version the book does not know."""

import re
from pathlib import Path

import pytest

from preshuffle.registry import BookError, NoRecipeError, Observation, Query, Registry, observation_of
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.kernels import dispatch_book
from preshuffle.registry.layer import engine_notes, unknown_engine
from preshuffle.registry.lint import lint
from preshuffle.registry.loading import load_book
from preshuffle.registry.values.query import Engine
from support.book.strategies import BOOK, REGISTRY, load_overlay

GPT_OSS = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "cu_num": 256}
AHEAD = "vllm 0.33.0 is written for AITER 0.1.24, newer than the newest known (0.1.20.post1)"

ACME = """rules:
  acme.gpt-oss:
    when: {model: openai/gpt-oss-120b, arch: gfx950, engine: acme}
    use: mxfp4.sep16
    because: as Acme says
"""
ACME_ENTRY = """engines:
  acme: {title: Acme, first: "2.0", newest: "2.4"}
"""


def engine(text: str) -> Engine:
    found = Query.parse({**GPT_OSS, "engine": text}).engine
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("vllm@0.33.0", (AHEAD,)),
        ("vllm@0.33", (AHEAD,)),
        ("vllm@0.33.0rc1", ("vllm 0.33.0rc1 is answered as vllm 0.33.0: what it does before 0.33.0 is not known",)),
        ("vllm@0.33.0+rocm700", (AHEAD,)),
        ("vllm", ("no vllm version given: answered as vllm 0.33.0, the newest known", AHEAD)),
        ("vllm@99.0", ("vllm 99.0 is answered as vllm 0.33.0, the newest known", AHEAD)),
        ("vllm@0.33.0.post1", ("vllm 0.33.0.post1 is answered as vllm 0.33.0, the newest known", AHEAD)),
        ("vllm@0.1.0", ("vllm 0.1.0 is answered as vllm 0.33.0: what it does before 0.33.0 is not known",)),
        ("atom@0.1.5", ()),
        ("atom@0.1.2", ("atom 0.1.2 is answered as atom 0.1.3: what it does before 0.1.3 is not known",)),
        ("atom@0.2", ("atom 0.2 is answered as atom 0.1.6rc1.dev323, the newest known",)),
        ("tgi@3.0", ()),
    ],
)
def test_versions_outside_the_known_ones_are_said(text: str, notes: tuple[str, ...]) -> None:
    assert engine_notes(BOOK, engine(text)) == notes
    assert engine_notes(BOOK, None) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vlm@0.33.0", "unknown engine 'vlm'; did you mean vllm?"),
        ("sglan", "unknown engine 'sglan'; did you mean sglang?"),
        ("tgi", "unknown engine 'tgi'; valid: atom, sglang, vllm"),
        ("vllm", None),
    ],
)
def test_an_unknown_name_gets_the_nearest(text: str, message: str | None) -> None:
    assert unknown_engine(BOOK, engine(text)) == message
    explained = REGISTRY.explain(Query.parse({**GPT_OSS, "engine": text})).engine
    assert explained == ((message,) if message else engine_notes(BOOK, engine(text), BOOK.rules["gpt-oss.vllm"].since))
    if message:
        with pytest.raises(NoRecipeError, match=re.escape(f"{text}: {message}")):
            REGISTRY.resolve(Query.parse({**GPT_OSS, "engine": text}))
        with pytest.raises(NoRecipeError, match=re.escape(message)):
            REGISTRY.resolve(Query.parse({**GPT_OSS, "model": "acme/new", "engine": text}))


@pytest.mark.parametrize("text", ["vllm", "vllm@99.0", "sglang@0.1", "atom@0.1.2", "atom@0.1.5"])
def test_decision_and_check_say_the_same(text: str) -> None:
    query = Query.parse({**GPT_OSS, "engine": text, "tokens": [1]})
    decision = REGISTRY.resolve(query)
    notes = engine_notes(BOOK, query.engine, BOOK.rules[decision.rule].since)
    assert all(note in decision.reason for note in notes)
    assert ("answered as" in decision.reason) == (text != "atom@0.1.5")
    assert REGISTRY.check(observation_of(decision, query)).notes == notes


def test_a_refusal_says_it_too() -> None:
    with pytest.raises(NoRecipeError, match=r"vllm 99.0 is answered as vllm 0.33.0, the newest known"):
        REGISTRY.resolve(
            Query.parse({**GPT_OSS, "activation_dtype": "i8", "weight_dtype": "i8", "engine": "vllm@99.0"})
        )


def test_check_names_the_nearest_of_an_unknown_engine() -> None:
    observed = Observation.parse({"query": {**GPT_OSS, "engine": "vlm@0.33.0"}, "applied": {}})
    report = REGISTRY.check(observed)
    assert report.notes == ("unknown engine 'vlm'; did you mean vllm?",)
    assert not report.findings


def test_an_engine_that_only_an_overlays_rule_names_works(tmp_path: Path) -> None:
    registry = load_overlay(tmp_path, ACME)
    decision = registry.resolve(Query.parse({**GPT_OSS, "engine": "acme@1.0"}))
    assert (decision.recipe, decision.reason_kind) == ("mxfp4.sep16", "overlay")
    assert "acme 1.0" not in decision.reason
    assert unknown_engine(registry.book, engine("acme")) is None
    assert unknown_engine(registry.book, engine("acmee")) == "unknown engine 'acmee'; did you mean acme?"


def test_an_overlay_adds_an_engine(tmp_path: Path) -> None:
    registry = load_overlay(tmp_path, ACME_ENTRY + ACME)
    decision = registry.resolve(Query.parse({**GPT_OSS, "engine": "acme@1.0"}))
    assert "acme 1.0 is answered as acme 2.0: what it does before 2.0 is not known" in decision.reason


def test_a_rule_for_every_engine_says_that_the_name_is_unknown(tmp_path: Path) -> None:
    text = ACME.replace("engine: acme", "deployment: mine")
    decision = load_overlay(tmp_path, text).resolve(Query.parse({**GPT_OSS, "engine": "vlm", "deployment": "mine"}))
    assert "unknown engine 'vlm'; did you mean vllm" in decision.reason


def test_entries_are_ordered(tmp_path: Path) -> None:
    with pytest.raises(BookError, match=r"first known version 2\.5 is newer than the newest, 2\.4"):
        load_overlay(tmp_path, ACME_ENTRY.replace("2.0", "2.5"))


def test_every_packaged_rule_is_for_an_engine_with_an_entry() -> None:
    book = load_book()
    assert set(book.engines) == book.engine_names
    del book.entries["engines"]["sglang"]  # type: ignore[attr-defined]
    problems = [problem.message for problem in lint(book)]
    assert "unknown engine 'sglang'" in problems
    assert not [message for message in problems if "'vllm'" in message or "'atom'" in message]


def test_what_is_newer_than_the_dispatch_is_newer_by_version() -> None:
    for entry in BOOK.engines.values():
        said = any("written for AITER" in note for note in engine_notes(BOOK, Engine(name=entry.id)))
        newer = entry.aiter is not None and version_key(entry.aiter) > version_key(dispatch_book().newest)
        assert said == newer


def test_registries_without_engine_entries_answer() -> None:
    book = load_book()
    book.entries["engines"].clear()  # type: ignore[attr-defined]
    decision = Registry(book).resolve(Query.parse({**GPT_OSS, "engine": "vllm@99.0", "tokens": [1]}))
    assert "answered as" not in decision.reason


@pytest.mark.parametrize("model", ["openai/gpt-oss-120b", "deepseek-ai/DeepSeek-R1-0528", "amd/Kimi-K2.5-MXFP4"])
@pytest.mark.parametrize("engine", ["vllm@0.17.0", "vllm@0.29.0", "vllm@99", "sglang@0.5.15", "sglang", "atom@0.1.2"])
def test_every_answer_says_as_what_it_is_given(model: str, engine: str) -> None:
    query = Query.parse({"model": model, "arch": "gfx950", "tp": 8, "engine": engine, "tokens": [1]})
    notes = REGISTRY.engine_notes(query)
    decision = REGISTRY.resolve(query)
    since = BOOK.rules[decision.rule].since
    assert since is not None
    assert notes == engine_notes(BOOK, query.engine, since)
    assert all(note in decision.reason for note in notes)
    assert REGISTRY.explain(query).engine == notes
    assert REGISTRY.check(observation_of(decision, query)).notes == notes
    version = query.engine.version if query.engine else None
    if version is not None and version_key(version) < version_key(since):
        name = engine.partition("@")[0]
        assert notes == (f"{name} {version} is answered as {name} {since}: what it does before {since} is not known",)


def test_every_packaged_rule_of_an_engine_has_a_release_that_was_read() -> None:
    for rule in BOOK.rules.values():
        name = rule.when.get("engine")
        assert rule.since is not None or name is None, rule.id
        assert (rule.engine_since is not None) == (name is not None), rule.id
        if rule.since is not None:
            newest = dispatch_book().newest if name is None else BOOK.engines[str(name)].newest
            assert version_key(rule.since) <= version_key(newest), rule.id


SINCE = ACME.replace("    use:", '    since: "2.1"\n    use:')


def test_an_operators_rule_says_since_when_it_holds(tmp_path: Path) -> None:
    registry = load_overlay(tmp_path, ACME_ENTRY + SINCE)
    before, after = (Query.parse({**GPT_OSS, "engine": f"acme@{version}"}) for version in ("2.0", "2.1"))
    assert registry.engine_notes(before) == ("acme 2.0 is answered as acme 2.1: what it does before 2.1 is not known",)
    assert registry.engine_notes(after) == ()
    assert set(registry.engine_notes(before)) <= set(registry.check(Observation(query=before)).notes)


UNTIL = """rules:
  acme.old:
    when: {model: openai/gpt-oss-120b, arch: gfx950, engine: acme}
    until: "2.2"
    use: mxfp4.gui16
    because: so it was
"""


@pytest.mark.parametrize(
    ("version", "recipe"),
    [("@2.0", "mxfp4.gui16"), ("@2.2.dev1", "mxfp4.gui16"), ("@2.2", "mxfp4.sep16"), ("", "mxfp4.sep16")],
)
def test_a_rule_ends_with_the_release_that_does_otherwise(tmp_path: Path, version: str, recipe: str) -> None:
    registry = load_overlay(tmp_path, ACME_ENTRY + ACME + UNTIL.partition("\n")[2])
    assert registry.resolve(Query.parse({**GPT_OSS, "engine": f"acme{version}"})).recipe == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('until: "2.2"', 'since: "2.2"\n    until: "2.2"'), "until 2.2 is not newer than since 2.2"),
        (("engine: acme}", 'engine: acme, engine_version: ">=2.0"}'), "give the last release once"),
        (('"2.2"', "two"), "is not a version"),
    ],
)
def test_releases_that_make_no_sense_do_not_load(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(BookError, match=message):
        load_overlay(tmp_path, UNTIL.replace(*change))


@pytest.mark.parametrize(
    ("since", "message"),
    [(None, "names an engine and no `since`"), ("0.34", "0.34 is newer than the newest known release of vllm, 0.33.0")],
)
def test_packaged_rules_need_a_release_that_is_known(since: str | None, message: str) -> None:
    book = load_book()
    rule = book.rules["gpt-oss.vllm"]
    book.entries["rules"][rule.id] = rule.model_copy(update={"since": since})  # type: ignore[index]
    assert any(message in problem.message for problem in lint(book))


@pytest.mark.parametrize(
    ("engine", "env", "message"),
    [
        ("vllm@0.30.0", {"VLLM_ROCM_USE_AITER_MOE_SITUV2": "a8w4"}, "does not read it yet; 0.31.0 is the first"),
        ("vllm@0.33.0", {"VLLM_ROCM_USE_AITER_MOE_SITUV2_A8W4": "1"}, "reads it no more; 0.31.0 removed it"),
        ("sglang@0.5.16", {"SGLANG_AITER_K3_OPT": "1"}, "does not read it yet; 0.5.17 is the first"),
        ("vllm@0.31.0", {"VLLM_ROCM_USE_AITER_MOE_SITUV2": "a8w4"}, None),
        ("vllm", {"VLLM_ROCM_USE_AITER_MOE_SITUV2": "a8w4"}, None),
    ],
)
def test_switches_are_of_releases_too(engine: str, env: dict[str, str], message: str | None) -> None:
    query = Query.parse({"model": "moonshotai/Kimi-K3", "arch": "gfx950", "engine": engine, "env": env, "tokens": [1]})
    found = [item.message for item in REGISTRY.resolve(query).findings if item.code == "flag_unknown"]
    assert [message in text for text in found] == [True] if message else not found


@pytest.mark.parametrize(
    ("version", "recipe"), [("0.27", "a16w4"), ("0.30.1", "a16w4"), ("0.31", "a4w4"), ("1", "a4w4")]
)
def test_a_default_that_changed_is_that_of_the_release(version: str, recipe: str) -> None:
    query = Query.parse({"model": "moonshotai/Kimi-K3", "arch": "gfx950", "engine": f"vllm@{version}", "tp": 8})
    assert REGISTRY.resolve(query).recipe == f"vllm.mxfp4.sep16.situ-{recipe}"
