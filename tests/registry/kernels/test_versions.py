"""Versions compare as PEP 440 says, and each AITER version gets the behaviour that is known of it."""

import itertools

import pytest

from preshuffle.registry.base.versions import InvalidVersionError, local_commit, version_key
from preshuffle.registry.kernels import DispatchCall, dispatch
from preshuffle.registry.kernels.aiter_versions.behaviour import behaviour_of
from preshuffle.registry.kernels.aiter_versions.padding import tier_value

ASCENDING = [
    "0.1.7.dev1",
    "0.1.7a1.dev2",
    "0.1.7a1",
    "0.1.7b2",
    "0.1.7rc1",
    "0.1.7",
    "0.1.7.post2.dev18",
    "0.1.7.post2",
    "0.1.8",
    "0.1.10",
    "0.1.20.dev+ge4048607a5",
    "0.1.20",
    "0.1.20.post1",
    "1!0.1",
]


def call(**fields: object) -> DispatchCall:
    base = {
        "gfx": "gfx950", "cu_num": 256, "tokens": 64, "model_dim": 4096, "inter_dim": 1024, "expert": 64, "topk": 4,
        "activation": "Silu", "weight_dtype": "fp4x2", "quant_type": "per_1x32",
    }  # fmt: skip
    return DispatchCall.model_validate(base | fields)


@pytest.mark.parametrize(("older", "newer"), [*itertools.combinations(ASCENDING, 2)])
def test_order_is_that_of_pep_440(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


@pytest.mark.parametrize(("one", "other"), [("0.1.20", "v0.1.20.0"), ("1.0RC1", "1.0-c1"), ("1.0-2", "1.0.post2")])
def test_spellings_of_one_version_are_equal(one: str, other: str) -> None:
    assert version_key(one) == version_key(other)


@pytest.mark.parametrize("text", ["", "main", "0.1.x", "0.1.7 post", "latest"])
def test_other_strings_are_refused(text: str) -> None:
    with pytest.raises(InvalidVersionError, match="PEP 440"):
        version_key(text)


def test_commit_of_a_development_build() -> None:
    assert local_commit("0.1.20.dev3+ge4048607a5.d20260822") == "e4048607a5"
    assert local_commit("0.1.20+rocm7") is None


@pytest.mark.parametrize(
    ("version", "tokens", "padded"),
    [
        ("0.1.7.post2.dev18", [1, 16, 17, 1023, 1024, 100000], [16, 16, 32, 1024, 1024, 1024]),
        ("0.1.8", [1, 1024, 2047, 2048, 16384], [16, 1024, 1024, 2048, 16384]),
        ("0.1.10", [1, 3, 1500, 5000, 40000], [1, 4, 1024, 2048, 16384]),
        ("0.1.13", [3, 20000, 32768, 200000], [4, 32768, 32768, 32768]),
        ("0.1.14", [3, 32768, 131071, 131072], [4, 32768, 32768, 131072]),
    ],
)
def test_token_padding_by_version(version: str, tokens: list[int], padded: list[int]) -> None:
    assert [tier_value(behaviour_of(version).data.padding, m) for m in tokens] == padded


@pytest.mark.parametrize(
    ("version", "mode"),
    [("0.1.7", "exact"), ("0.1.13", "exact"), ("0.1.14", "any"), ("0.1.17", "any"), ("0.1.18", "exact_then_any"),
     ("0.1.19", "exact_then_any"), ("0.1.19.post1", "any"), ("0.1.20", "any"), (None, "any")],
)  # fmt: skip
def test_activation_in_the_key_by_version(version: str | None, mode: str) -> None:
    assert behaviour_of(version).data.act_type == mode


def test_unknown_versions_say_so() -> None:
    for version in (None, "0.1.21", "9.0", "0.1.3"):
        assert any("answered as" in note for note in dispatch(call(aiter=version)).notes), version
    assert not any("answered as" in note for note in dispatch(call(aiter="0.1.20.post1")).notes)


def test_versions_between_the_known_ends_name_what_is_assumed() -> None:
    assert any("0.1.9 to 0.1.11" in note for note in dispatch(call(aiter="0.1.11")).notes)
    assert behaviour_of("0.1.20").notes == ()


@pytest.mark.parametrize(
    ("aiter", "tokens", "dtype"),
    [("0.1.12", 300, "bf16"), ("0.1.13", 300, "fp8"), ("0.1.13.post1", 300, "bf16"), ("0.1.13.post1", 512, "fp8")],
)
def test_the_bound_of_swiglu_differs_by_release(aiter: str, tokens: int, dtype: str) -> None:
    assert dispatch(call(aiter=aiter, tokens=tokens, activation="Swiglu")).activation_dtype == dtype


@pytest.mark.parametrize(("aiter", "function"), [("0.1.13", "asm_stage1"), ("0.1.13.post1", "_flydsl_stage1_wrapper")])
def test_int4_in_groups_came_with_a_post_release(aiter: str, function: str) -> None:
    choice = dispatch(call(aiter=aiter, weight_dtype="i4x2"))
    assert choice.stage1 is not None
    assert choice.stage1.func == function


@pytest.mark.parametrize(
    ("aiter", "error"), [("0.1.19", None), ("0.1.19.post2", None), ("0.1.20", "NotImplementedError")]
)
def test_situv2_refuses_an_expert_mask_from_the_release_on_that_raises(aiter: str, error: str | None) -> None:
    choice = dispatch(call(aiter=aiter, activation="Situv2", ep=True))
    assert (choice.error or "").partition(":")[0] == (error or "")


def test_a_known_commit_is_the_snapshot_and_another_one_is_not() -> None:
    assert behaviour_of("0.1.20.dev+ge4048607a5").key == "0.1.20"
    other = behaviour_of("0.1.20.dev+gdeadbeef")
    assert other.key == "0.1.19"
    assert any("development build" in note for note in other.notes)


def test_a_variable_that_a_version_does_not_read_changes_nothing() -> None:
    env = {"AITER_BF16_FP8_MOE_BOUND": "0"}
    asked = {"activation": "Swiglu", "gate_mode": "interleave", "tokens": 16, "env": env}
    assert dispatch(call(**asked)).activation_dtype == "fp8"
    old = dispatch(call(**asked, aiter="0.1.13"))
    assert old.activation_dtype == "bf16"
    assert any("AITER_BF16_FP8_MOE_BOUND" in note for note in old.notes)


def test_situv2_before_it_existed_is_an_error() -> None:
    choice = dispatch(call(activation="Situv2", aiter="0.1.18"))
    assert choice.error is not None
    assert choice.error.startswith("AttributeError:")
    assert choice.stage1 is None


@pytest.mark.parametrize("version", [f"0.1.{minor}" for minor in range(5, 22)])
def test_every_version_answers_every_kind_of_call(version: str) -> None:
    weights = [("bf16", "No"), ("fp8", "per_Token"), ("fp8", "per_1x128"), ("fp4x2", "per_1x32"), ("i4x2", "per_1x32")]
    for (weight, quant), activation in itertools.product(weights, ("Silu", "Gelu", "Swiglu")):
        choice = dispatch(call(aiter=version, weight_dtype=weight, quant_type=quant, activation=activation))
        assert choice.error is None
        assert choice.stage1 is not None
