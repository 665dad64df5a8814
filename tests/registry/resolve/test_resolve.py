"""From a query to a decision: the design's example field by field, and every way in which there is none."""

from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import Engine, NoRecipeError, Query, QueryError, Registry
from support.book.strategies import BOOK, GPT_OSS, REGISTRY, decide, load_overlay

COMPLETE: dict[str, Any] = {
    "model": "somebody/their-moe",
    "weight_dtype": "fp4x2",
    "quant_type": "per_1x32",
    "activation": "Swiglu",
    "activation_dtype": "fp4x2",
    "gate_up_order": "GGUU",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_experts": 8,
    "top_k": 2,
    "bias": False,
}


def test_the_designs_first_example() -> None:
    decision = decide(activation_dtype="fp4x2", tp=2)
    assert (decision.recipe, decision.rule) == ("mxfp4.sep16", "gpt-oss.a4w4.gfx950")
    assert decision.reason.startswith("model, arch and activation_dtype match exactly; ")
    shown = decision.model_dump(mode="json")
    w13 = {"layout": "sep16", "logical_shape": [128, 2880, 2880], "physical_shape": [128, 3072, 3072]}
    more = {"pad": {"rows": 96, "k": 192}, "fill": 0, "dtype": "fp4x2"}
    assert {**w13, **more}.items() <= shown["tensors"]["w13_weight"].items()
    w2 = {"layout": "sep16", "logical_shape": [128, 2880, 1440], "physical_shape": [128, 3072, 1536]}
    assert w2.items() <= shown["tensors"]["w2_weight"].items()
    scale = {"layout": "e8", "physical_shape": [128, 3072, 96], "fill": 127}
    assert scale.items() <= shown["tensors"]["w13_weight_scale"].items()
    assert {"layout": "plain", "dtype": "fp32"}.items() <= shown["tensors"]["w13_bias"].items()
    call = {"gate_mode": "separated", "quant_type": "per_1x32", "hidden_pad": 192, "intermediate_pad": 96}
    assert call.items() <= shown["call"].items()
    first = shown["kernels"][0]
    assert {"tokens": 1, "activation_dtype": "bf16", "tuned": None}.items() <= first.items()
    assert first["stage1"]["func"] == "cktile_moe_stage1"
    (alternative,) = shown["alternatives"]
    assert alternative["recipe"] == "mxfp4.gui16"
    assert alternative["why_not"].startswith("for bf16 activations; needs gate_mode=interleave")
    assert shown["findings"] == []
    assert shown["registry_digest"].startswith("sha256:")
    assert shown["decision_digest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("activation_dtype", "tokens", "runs"),
    [("bf16", 1, "bf16"), ("bf16", 16384, "bf16"), ("fp4x2", 255, "bf16"), ("fp4x2", 256, "fp4x2")],
)
def test_bf16_stays_bf16_and_fp4x2_starts_at_aiters_bound(activation_dtype: str, tokens: int, runs: str) -> None:
    decision = decide(activation_dtype=activation_dtype, tokens=[tokens])
    (bucket,) = decision.kernels
    assert (bucket.tokens, bucket.activation_dtype) == (tokens, runs)
    assert (decision.env == {}) == (activation_dtype == "fp4x2")


@pytest.mark.parametrize("activation_dtype", ["bf16", "fp4x2"])
@pytest.mark.parametrize("engine", [None, "atom", "vllm", "sglang"])
def test_every_predicted_kernel_reads_the_bytes_that_were_decided(engine: str | None, activation_dtype: str) -> None:
    decision = decide(engine=engine, activation_dtype=activation_dtype)
    assert len(decision.kernels) == 7
    for bucket in decision.kernels:
        for stage in (bucket.stage1, bucket.stage2):
            assert stage is not None
            assert stage.reads
            assert all(decision.tensors[role].layout == layout for role, layout in stage.reads.items())  # type: ignore[index]
    assert not [finding for finding in decision.findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("engine", "recipe", "gate_mode"),
    [
        ("atom", "atom.mxfp4.sep16", "separated"),
        ("vllm", "vllm.gpt-oss.gui16", "interleave"),
        ("sglang", "sglang.mxfp4.gui16", "interleave"),
    ],
)
@pytest.mark.parametrize("activation_dtype", ["bf16", "fp4x2"])
@pytest.mark.parametrize("version", ["", "@0.33.0"])
def test_with_an_engine_named_the_decision_does_what_it_does(
    engine: str, recipe: str, gate_mode: str, activation_dtype: str, version: str
) -> None:
    decision = decide(engine=f"{engine}{version}", activation_dtype=activation_dtype, tokens=[1])
    assert (decision.recipe, decision.call.gate_mode) == (recipe, gate_mode)
    assert not [other for other in decision.alternatives if not other.recipe.startswith(engine)]


@pytest.mark.parametrize(
    ("fields", "message", "nearest"),
    [
        (
            {"arch": "gfx942", "activation_dtype": "fp4x2"},
            "nothing is known to work for openai/gpt-oss-120b with activation_dtype fp4x2, gfx942: gfx942 has no MXFP4",
            "gpt-oss.a4w4.gfx950 -> mxfp4.sep16: needs arch=gfx950, found gfx942; gfx942 has no MXFP4 matrix instr",
        ),
        ({"arch": "gfx951"}, "unknown arch 'gfx951'; did you mean gfx950, ", None),
        (
            {"activation_dtype": "i8"},
            "no rule for openai/gpt-oss-120b with activation_dtype i8, gfx950",
            "gpt-oss.a16w4.gfx950 -> mxfp4.gui16: needs activation_dtype=bf16, found i8",
        ),
        (
            {"engine": "tgi@3.0"},
            "no rule for openai/gpt-oss-120b with activation_dtype bf16, gfx950, engine tgi@3.0: unknown engine 'tgi'",
            None,
        ),
        (
            {"aiter": "0.1.13"},
            "no rule for openai/gpt-oss-120b with activation_dtype bf16, gfx950",
            "needs AITER's gate_mode (since 0.1.14), found 0.1.13",
        ),
        (
            {"aiter": "0.1.14rc1", "engine": "atom"},
            "no rule for openai/gpt-oss-120b with activation_dtype bf16, gfx950, engine atom",
            "needs AITER's gate_mode (since 0.1.14), found 0.1.14rc1",
        ),
        (
            {"model": "openai/gpt-oss-12b"},
            "no rule for model 'openai/gpt-oss-12b' on gfx950: no entry knows it (nearest: openai/gpt-oss-120b, openai",
            "needs activation_dtype=bf16, found absent; needs env.GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT=1, found 0",
        ),
        (
            {"model": "gpt_oss"},
            "no rule for gpt_oss with activation_dtype unknown, gfx950; a query for it must say: weight_dtype, quant_",
            "needs activation_dtype=bf16, found absent",
        ),
    ],
)
def test_without_a_rule_the_nearest_are_named(fields: dict[str, Any], message: str, nearest: str | None) -> None:
    with pytest.raises(NoRecipeError) as caught:
        decide(**fields)
    error = caught.value
    assert error.message.startswith(message)
    assert str(error).splitlines()[0] == error.message
    assert (nearest is None) == (not error.nearest)
    assert nearest is None or nearest in str(error)
    assert len(error.nearest) <= 3


def test_what_was_asked_cannot_write_into_a_terminal() -> None:
    with pytest.raises(NoRecipeError) as caught:
        decide(model="\x1b[31mred\nnearest: a lie")
    assert str(caught.value).replace("\n", "").isprintable()
    assert "\nnearest: a lie" not in str(caught.value)


@pytest.mark.parametrize("aiter", ["0.1.14", "0.1.14.post1", "0.1.20.dev+ge4048607a5", "v0.1.20", "99.0", None])
def test_an_aiter_that_is_new_enough_or_not_named(aiter: str | None) -> None:
    assert decide(aiter=aiter, tokens=[1]).recipe == "mxfp4.gui16"


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
        ("/models/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("/models/gpt-oss-120b/", "openai/gpt-oss-120b"),
        ("./gpt-oss-20b", "openai/gpt-oss-20b"),
        ("s3://bucket/a b/ü/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("gpt-oss-120b-lora", None),
        ("models/gpt-oss-120b/v2", None),
        ("GPT-OSS-120B", None),
        ("[a-z]*", None),
        ("*", None),
        ("", None),
        ("/", None),
        ("\x00", None),
    ],
)
def test_names_of_a_model(name: str, id: str | None) -> None:
    entry = BOOK.model_names.find(name)
    assert (entry.id if entry else None) == id
    if id is not None:
        decision = decide(model=name, tokens=[1])
        assert decision.decision_digest == decide(model=id, tokens=[1]).decision_digest
        assert (f"{name} is read as {id}" in decision.reason) == (name != id)


def test_the_longest_alias_wins(tmp_path: Path) -> None:
    text = 'models:\n  mine/gpt-oss-120b: {aliases: ["/mine/*/gpt-oss-120b"], evidence: [x]}\n'
    book = load_overlay(tmp_path, text).book
    found = [book.model_names.find(name) for name in ("/mine/x/gpt-oss-120b", "/other/gpt-oss-120b")]
    assert [entry.id if entry else None for entry in found] == ["mine/gpt-oss-120b", "openai/gpt-oss-120b"]


def test_what_the_query_says_overrides_the_models_entry() -> None:
    tensors = decide(hidden_size=512, intermediate_size=1024, num_experts=8, gate_up_order="GGUU", tokens=[1]).tensors
    assert tensors["w13_weight"].logical_shape == (8, 2048, 512)
    assert tensors["w13_weight"].source_order == "GGUU"


GENERIC = """rules:
  any.a4w4.gfx950:
    when: {arch: [gfx950], activation: [Swiglu], activation_dtype: fp4x2, engine: null}
    use: mxfp4.sep16
    because: a test
    evidence: [x]
"""


def test_a_rule_without_a_model_answers_for_a_model_that_no_entry_knows(tmp_path: Path) -> None:
    registry = load_overlay(tmp_path, GENERIC)
    decision = decide(registry, **COMPLETE)
    assert (decision.rule, decision.recipe) == ("any.a4w4.gfx950", "mxfp4.sep16")
    assert decision.tensors["w13_weight"].logical_shape == (8, 2048, 512)
    assert (decision.call.swiglu_limit, decision.call.bias) == (None, False)
    assert decide(registry, activation_dtype="fp4x2").rule == "gpt-oss.a4w4.gfx950", "a model's own rule is nearer"


@pytest.mark.parametrize("field", sorted(set(COMPLETE) - {"model", "gate_up_order"}))
def test_what_an_unknown_model_must_say_is_named(tmp_path: Path, field: str) -> None:
    registry = load_overlay(tmp_path, GENERIC)
    with pytest.raises(NoRecipeError) as caught:
        decide(registry, **{**COMPLETE, field: None})
    assert caught.value.missing == (field,)
    assert caught.value.message.endswith(f"must say: {field}")
    assert "no entry knows" in caught.value.message


@pytest.mark.parametrize("tokens", [0, -1, True, 2**31 + 1, "many", 1.5, None])
def test_predict_refuses_what_is_no_token_count(tokens: Any) -> None:
    with pytest.raises(QueryError, match=r"^tokens\.0: "):
        REGISTRY.predict(Query.parse(GPT_OSS), tokens)


def test_predict_is_the_decisions_bucket() -> None:
    decision = decide(tokens=[64])
    assert REGISTRY.predict(Query.parse(GPT_OSS), 64).model_dump() == decision.kernels[0].model_dump(exclude={"tokens"})


def test_engines_are_compared_by_name_only_where_a_rule_has_no_version(tmp_path: Path) -> None:
    text = """rules:
  mine:
    when: {model: openai/gpt-oss-120b, arch: gfx950, engine: vllm, engine_version: ">=0.40"}
    use: mxfp4.sep16
    because: a test
    evidence: [x]
"""
    registry = load_overlay(tmp_path, text)
    recipes = [decide(registry, engine=Engine(name="vllm", version=v)).recipe for v in ("0.39.1", "0.40.0", None)]
    assert recipes == ["vllm.gpt-oss.gui16", "mxfp4.sep16", "vllm.gpt-oss.gui16"]


UNKNOWN = {
    "model": "acme/swiglu-moe",
    "arch": "gfx950",
    "weight_dtype": "fp4x2",
    "quant_type": "per_1x32",
    "activation": "Swiglu",
    "gate_up_order": "GGUU",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_experts": 8,
    "top_k": 2,
    "bias": False,
}


@pytest.mark.parametrize(("activation_dtype", "recipe"), [("fp4x2", "mxfp4.sep16"), ("bf16", "mxfp4.gui16")])
def test_a_model_that_no_entry_knows_is_fine_where_the_query_says_all(activation_dtype: str, recipe: str) -> None:
    decision = REGISTRY.resolve(Query.parse({**UNKNOWN, "activation_dtype": activation_dtype}))
    assert decision.recipe == recipe
    assert decision.tensors["w13_weight"].source_order == "GGUU"
    assert decision.findings == ()


@pytest.mark.parametrize(
    ("field", "value"), [("activation", "Gelu"), ("weight_dtype", "i8"), ("engine", "tgi"), ("quant_type", "No")]
)
def test_an_unknown_model_of_another_kind_is_not_guessed(field: str, value: str) -> None:
    with pytest.raises(NoRecipeError):
        REGISTRY.resolve(Query.parse({**UNKNOWN, "activation_dtype": "bf16", field: value}))


@pytest.mark.parametrize(("tp", "wrong"), [(1, False), (2, False), (4, True), (8, True)])
def test_atom_slices_through_groups(tp: int, wrong: bool) -> None:
    found = [finding for finding in decide(engine="atom", tp=tp).findings if finding.code == "scale_shape"]
    assert bool(found) == wrong
    assert all("through a group of 32" in finding.message for finding in found)
    assert all("whole groups of 32" in str(finding.fix) for finding in found)


def test_the_clamp_is_the_querys_else_the_models() -> None:
    assert decide().call.swiglu_limit == 7.0
    assert decide(swiglu_limit=3).call.swiglu_limit == 3.0
    config = {
        "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 4,
        "num_experts_per_tok": 4, "swiglu_limit": 5.5, "quantization_config": {"quant_method": "mxfp4"},
    }  # fmt: skip
    assert REGISTRY.resolve(Registry.default().query_from_hf_config(config, arch="gfx950")).call.swiglu_limit == 5.5


@pytest.mark.parametrize("hidden", [2881, 330])
def test_a_hidden_size_that_is_not_whole_groups_is_refused(hidden: int) -> None:
    with pytest.raises(QueryError, match=f"hidden_size: {hidden} is not whole groups of 32"):
        decide(hidden_size=hidden)


@pytest.mark.parametrize("text", ["1", "true", "True", "ON"])
def test_a_switch_that_is_read_as_a_boolean_has_many_spellings(text: str) -> None:
    decision = decide(engine="sglang", env={"SGLANG_USE_AITER": text})
    assert not any(finding.code == "flag_conflict" for finding in decision.findings)


def test_a_switch_against_what_the_recipe_needs_is_a_conflict() -> None:
    decision = decide(engine="vllm", env={"VLLM_ROCM_USE_AITER": "False"})
    assert [finding.code for finding in decision.findings if finding.severity == "error"] == ["flag_conflict"]


def test_stated_token_counts_are_not_the_default_ones() -> None:
    """Equal queries: one states the token counts that another leaves out, and is judged at those alone."""
    env = {"AITER_BF16_FP8_MOE_BOUND": "256"}
    fields = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "bf16", "env": env}
    left_out, stated = Query.parse(fields), Query.parse({**fields, "tokens": [1, 16, 64, 256, 1024, 4096, 16384]})
    assert left_out == stated
    found = [
        next(f.message for f in REGISTRY.resolve(query).findings if f.code == "numerics_deviation")
        for query in (left_out, stated)
    ]
    assert "at 256 and more tokens" in found[0]
    assert "at 256, 1024, 4096, 16384 tokens" in found[1]
