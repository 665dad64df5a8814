"""What an AITER can do, by its version through the book's table, or as somebody probed it."""

import pytest

from preshuffle.registry import NoRecipeError, Query, QueryError
from preshuffle.registry.base.versions import InvalidVersionError, version_key
from preshuffle.registry.layer.features import features_of, why_lacking
from support.book.strategies import BOOK, REGISTRY

GPT_OSS = {"model": "openai/gpt-oss-120b", "arch": "gfx950"}

# AITER's own timeline: the first release that has it.
TIMELINE = {
    "shuffle_a16w4": "0.1.7",
    "tag_sep16": "0.1.7.post2.dev18",
    "k_split": "0.1.9",
    "non_temporal_loads": "0.1.10",
    "is_shuffled_dispatch": "0.1.11",
    "flydsl_a4w4": "0.1.11",
    "warns_unshuffled": "0.1.13",
    "gate_mode": "0.1.14",
    "tag_gui16": "0.1.14",
    "shuffle_scale": "0.1.14",
    "swiglu_limit": "0.1.14",
    "swiglu_separated_a4w4": "0.1.14",
    "int4_group32": "0.1.13.post1",
    "shuffle_weight_gfx1250": "0.1.16",
    "rows_name_gfx": "0.1.16",
    "pad_k_to": "0.1.17",
    "shuffle_scale_n32k4": "0.1.17",
    "opus_stage2": "0.1.17",
    "moe_shuffle_gfx1250": "0.1.18",
    "gui_scale_pad_one": "0.1.18",
    "mxmoe_a4w4": "0.1.18",
    "situv2": "0.1.19",
    "opus_stage1": "0.1.19.post1",
    "situv2_a4w4": "0.1.19.post1",
}
RELEASES = sorted({*TIMELINE.values(), "0.1.12", "0.1.15", "0.1.20.post1"}, key=version_key)


@pytest.mark.parametrize("feature", TIMELINE)
def test_a_feature_is_there_from_its_first_release_on(feature: str) -> None:
    first = version_key(TIMELINE[feature])
    for release in RELEASES:
        found = features_of(BOOK, release)
        assert found.has[feature] == (version_key(release) >= first)
        assert found.how[feature] == "by version"


def test_some_go_again() -> None:
    assert features_of(BOOK, "0.1.13").has["exact_activation_rows"]
    assert not features_of(BOOK, "0.1.14").has["exact_activation_rows"]


def test_without_a_version_nothing_is_known() -> None:
    found = features_of(BOOK)
    assert set(found.has.values()) == {None}
    assert set(found.how.values()) == {"unknown"}


def test_what_was_probed_counts_before_the_version() -> None:
    found = features_of(BOOK, "0.1.13", {"gate_mode": True, "flydsl_a4w4": False})
    assert (found.has["gate_mode"], found.how["gate_mode"]) == (True, "probed")
    assert (found.has["flydsl_a4w4"], found.how["flydsl_a4w4"]) == (False, "probed")
    assert (found.has["swiglu_limit"], found.how["swiglu_limit"]) == (False, "by version")
    alone = features_of(BOOK, probed={"gate_mode": True})
    assert (alone.has["gate_mode"], alone.has["swiglu_limit"]) == (True, None)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(QueryError, match="aiter_features: unknown feature 'gate_modes'; valid: gate_mode"):
        features_of(BOOK, probed={"gate_modes": True})
    with pytest.raises(InvalidVersionError, match="'new' is not a version"):
        features_of(BOOK, "new")


@pytest.mark.parametrize(
    ("aiter", "text"),
    [
        ("0.1.13", "needs AITER's gate_mode (since 0.1.14), found 0.1.13, by version"),
        ("0.1.14rc1", "needs AITER's gate_mode (since 0.1.14), found 0.1.14rc1, by version"),
        (
            "0.1.14.dev3+gabcdef0",
            "needs AITER's gate_mode (since 0.1.14), found 0.1.14.dev3+gabcdef0, a development build: whether it has it"
            " is not known by version; probe it (aiter_features)",
        ),
        ("0.1.14", None),
        ("0.1.20.post1", None),
        ("0.1.7.dev3+ge4048607a5", None),  # a commit whose content is known, whatever it calls itself
    ],
)
def test_why_a_version_lacks_a_feature(aiter: str, text: str | None) -> None:
    assert why_lacking(BOOK.features["gate_mode"], aiter) == text


def test_a_decision_says_how_it_knows() -> None:
    decision = REGISTRY.resolve(Query.parse({**GPT_OSS, "aiter": "0.1.20"}))
    assert "AITER 0.1.20 has gate_mode, bf16_fp8_bound (by version)" in decision.reason
    assert "by version" not in REGISTRY.resolve(Query.parse(GPT_OSS)).reason
    with pytest.raises(NoRecipeError, match=r"needs AITER's gate_mode \(since 0\.1\.14\), found 0\.1\.12, by version"):
        REGISTRY.resolve(Query.parse({**GPT_OSS, "aiter": "0.1.12"}))


def test_recipes_require_features_that_the_book_has() -> None:
    required = {name for recipe in BOOK.recipes.values() for name in recipe.requires.aiter}
    assert required <= set(BOOK.features)
    assert "gate_mode" in required


@pytest.mark.parametrize(
    ("release", "there"),
    [("0.1.16.post3", False), ("0.1.16.post4", True), ("0.1.16.post6", True), ("0.1.17", False), ("0.1.18", True)],
)
def test_a_backport_is_in_the_releases_that_have_it_alone(release: str, there: bool) -> None:
    assert features_of(BOOK, release).has["mxmoe_a4w4"] == there
    name = "flydsl_mxmoe_g1_a4w4_32x128x256"
    later = BOOK.families.begins_later(release, [name])
    assert (later is None) == there
