"""The chart of kernels: every token count has its answer, equal ones are one bar, and words say the same."""

from xml.etree import ElementTree

import pytest

from preshuffle.api.pages.pictures.kernel_picture import kernels_svg, kernels_words
from preshuffle.registry import Query, Registry
from preshuffle.registry.values.decision import KernelBucket

QUERY = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2)
BUCKETS = Registry.default().resolve(QUERY).kernels


def bars(buckets: tuple[KernelBucket, ...]) -> list[tuple[str, str, float]]:
    """Class, title and width of each bar, lane by lane."""
    root = ElementTree.fromstring(kernels_svg(buckets, "x"))
    return [
        (bar.get("class", ""), bar.findtext("title") or "", float(bar.get("width", "0"))) for bar in root.iter("rect")
    ]


def test_equal_neighbours_are_one_bar_as_wide_as_they_are_many() -> None:
    activations = [(title, width) for tint, title, width in bars(BUCKETS) if title.startswith(("bf16", "fp4x2"))]
    assert [title.partition(":")[0] for title, _ in activations] == ["bf16", "fp4x2"]
    assert activations[0][1] < activations[1][1]
    counts = [text.text for text in ElementTree.fromstring(kernels_svg(BUCKETS, "x")).iter("tspan")]
    assert [text for text in counts if text and text[0].isdigit()][:3] == ["1", "16", "64"]


def test_one_family_has_one_colour_in_both_stages() -> None:
    tints: dict[str, str] = {}
    for tint, title, _ in bars(BUCKETS):
        if tint.startswith("bar f"):
            assert tints.setdefault(title.partition(":")[0], tint) == tint
    assert len(set(tints.values())) == len(tints) == 4


@pytest.mark.parametrize(
    ("tuned", "tint", "words"),
    [(True, "good", "tuned"), (False, "warn", "untuned"), (None, "dim", "tuned or not is unknown")],
)
def test_tuned_untuned_and_unknown_are_told_apart_by_word_and_colour(tuned: bool | None, tint: str, words: str) -> None:
    bucket = BUCKETS[0].model_copy(update={"tuned": tuned, "source": None})
    assert bars((bucket,))[-1][0] == f"bar {tint}"
    assert kernels_words((bucket,)).endswith(f"{words}.")


def test_what_raises_and_what_is_one_kernel_is_said() -> None:
    raises = BUCKETS[0].model_copy(update={"error": "ValueError: <none>"})
    single = BUCKETS[0].model_copy(update={"stage2": None})
    assert [title for tint, title, _ in bars((raises,)) if tint == "bar bad"] == ["raises: ValueError: <none>"] * 2
    assert "in stage 1: both stages are one kernel" in [title for _, title, _ in bars((single,))]
    assert kernels_words((raises,)) == "1 token: AITER raises ValueError: <none>."


def test_many_token_counts_are_drawn_too_and_none_is_no_error() -> None:
    many = tuple(BUCKETS[0].model_copy(update={"tokens": 1 + index}) for index in range(256))
    assert len(bars(many)) == 4
    assert bars(()) == []
    assert kernels_words(()) == ""


def test_words_name_every_run_once() -> None:
    words = kernels_words(BUCKETS)
    assert words.startswith("1 to 64 tokens: cktile_stage1 then cktile_stage2 on bf16 activations")
    assert words.count("tokens:") == 2
