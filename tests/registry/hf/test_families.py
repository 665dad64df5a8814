"""Families that people run: each model type's real structure becomes a query."""

from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, QueryError, Registry
from preshuffle.registry.hf import language_model, model_type_of, moe_layers_of, query_fields
from support.book.configurations import KIMI_K3
from support.book.families import FAMILIES, WITHOUT_KERNEL
from support.book.family_builders import deepseek, mixtral, qwen
from support.book.strategies import BOOK, REGISTRY, load_overlay


def query(config: dict[str, Any], **given: Any) -> dict[str, Any]:
    return Registry.default().query_from_hf_config(config, arch="gfx950", **given).model_dump()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_says_its_sizes(name: str) -> None:
    config, wanted = FAMILIES[name]
    found = query(config)
    assert {field: found[field] for field in wanted} == wanted


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("deepseek_v2", range(1, 8)),
        ("step3_vl", range(4, 8)),
        ("step3p7", range(3, 8)),
        ("ernie4_5_moe", range(1, 6)),
        ("ernie4_5_vl_moe", range(1, 6)),
        ("jamba", range(1, 6, 2)),
        ("arctic", range(1, 8, 2)),
        ("lfm2_moe", range(2, 6)),
        ("longcat_flash", range(7)),
        ("inkling_mm_model", range(2, 6)),
        ("glm5_next", range(3, 8)),
        ("qwen3_omni_moe", range(6)),
        ("dbrx", range(6)),
        ("internvl_chat", range(6)),
    ],
)
def test_which_layers_have_experts(name: str, layers: range) -> None:
    config, _ = FAMILIES[name]
    entry = model_type_of(config, BOOK)
    assert moe_layers_of(language_model(config, entry), entry) == tuple(layers)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
        {"model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64},
        {"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "sliding_window": None},
        {"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text", "hidden_size": 4096}},
        {"model_type": "mistral3", "text_config": {"model_type": "ministral3", "hidden_size": 4096}},
        {"model_type": "internvl_chat", "llm_config": {"model_type": "qwen2", "hidden_size": 4096}},
        {"model_type": "gemma4", "text_config": {"model_type": "gemma4_text", "hidden_size": 5, "num_experts": None}},
        mixtral("granitemoehybrid", num_local_experts=0),
        deepseek("dots1", n_routed_experts=None),
        {**qwen("jamba"), "num_experts": 1},
        {"model_type": "hunyuan_v1_moe", "hidden_size": 4096, "num_experts": 1},
        {"model_type": "gpt2", "n_layer": 12, "n_embd": 768},
    ],
)
def test_a_dense_model_has_no_experts(config: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match=r"^model_type: no experts here: .* is a dense model"):
        query(config)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (qwen("acme_moe"), ""),
        ({"model_type": "acme_vl", "dtype": "bfloat16", "text_config": qwen("acme_text")}, "text_config"),
        ({"model_type": "acme", "torch_dtype": "bfloat16", "ffn_config": {"moe_num_experts": 8}, "hidden_size": 8}, ""),
    ],
)
def test_an_unknown_type_says_how_to_go_on(config: dict[str, Any], place: str) -> None:
    with pytest.raises(QueryError, match=r"^model_type: unknown 'acme") as caught:
        query(config)
    (problem,) = caught.value.problems
    for option in ("--hidden-size", "--intermediate-size", "--num-experts", "--top-k", "--weight-dtype", "--book FILE"):
        assert option in problem.message
    assert len(problem.lines) == 3
    assert (f"section: {place}" in "\n".join(problem.lines)) == bool(place)
    assert str(problem).endswith("\n  ".join(["", *problem.lines]))


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_lines_to_paste_make_it_known(tmp_path: Path, wrapped: bool) -> None:
    config = {"model_type": "acme_vl", "text_config": qwen("acme_text")} if wrapped else qwen("acme_moe")
    with pytest.raises(QueryError) as caught:
        query(config)
    registry = load_overlay(tmp_path, "\n".join(caught.value.problems[0].lines))
    found = registry.query_from_hf_config(config, arch="gfx950").model_dump()
    wanted = FAMILIES["qwen2_moe"][1]
    assert {field: found[field] for field in wanted} == wanted


def test_a_wrapper_that_the_book_does_not_know_is_read_by_its_language_model() -> None:
    config = {"model_type": "acme_chat", "torch_dtype": "bfloat16", "llm_config": qwen("qwen3_moe")}
    assert query(config) == query(FAMILIES["internvl_chat"][0])


def test_a_wrappers_excluded_experts_are_found_under_its_names() -> None:
    names = [f"language_model.model.layers.{layer}.mlp.experts" for layer in range(6)]
    section = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": names}
    config = {**FAMILIES["internvl_chat"][0], "quantization_config": section}
    assert query(config)["quant_type"] == "No"
    config["quantization_config"] = {**section, "modules_to_not_convert": ["language_model.lm_head"]}
    assert query(config)["quant_type"] == "per_1x128"


def test_layers_with_values_of_their_own_are_told_apart() -> None:
    config = {**FAMILIES["hunyuan_v1_moe"][0], "moe_topk": [8, 8, 8, 4, 4, 4]}
    with pytest.raises(QueryError, match=r"^moe_topk: differs between layers \(layers 0-2: 8; layers 3-5: 4\); say wh"):
        query(config)
    assert (query(config, layer=2)["top_k"], query(config, layer=5)["top_k"]) == (8, 4)


def test_a_clamp_behind_the_activation_is_another_activation() -> None:
    config = {**FAMILIES["step3p5"][0], "swiglu_limits": [0.0] * 6 + [7.0, 7.0]}
    with pytest.raises(QueryError, match=r"^swiglu_limits: differs between layers"):
        query(config)
    assert query(config, layer=4)["activation"] == "Silu"


def test_an_alias_says_the_same() -> None:
    config = FAMILIES["glm5_next"][0]
    assert query({**config, "model_type": "glm5next"}) == query(config)


@pytest.mark.parametrize("name", WITHOUT_KERNEL)
def test_an_activation_without_a_kernel_is_named(name: str) -> None:
    config, wanted = WITHOUT_KERNEL[name]
    fields = query_fields(config, BOOK, {"arch": "gfx950"})
    assert {field: fields[field] for field in wanted} == wanted


def test_letters_of_layers_count_as_their_names() -> None:
    config = WITHOUT_KERNEL["nemotron_h"][0]
    entry = model_type_of(config, BOOK)
    assert moe_layers_of(config, entry) == (1, 3, 6)
    kinds = ["mamba", "moe", "mamba", "moe", "attention", "mlp", "moe"]
    named = {key: value for key, value in config.items() if key not in ("hybrid_override_pattern", "num_hidden_layers")}
    assert moe_layers_of({**named, "layers_block_type": kinds}, entry) == (1, 3, 6)
    with pytest.raises(QueryError, match="the configuration has no layer with experts"):
        query({**config, "hybrid_override_pattern": "M-M*-M-"})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gemma4", "GELU by its tanh formula"),
        ("nemotron_h", "squared ReLU"),
        ("muse_spark", "normalizes each expert's output"),
    ],
)
@pytest.mark.parametrize("engine", [None, "vllm", "atom"])
def test_what_has_no_kernel_is_known_and_refused(name: str, reason: str, engine: str | None) -> None:
    config, _ = {**FAMILIES, **WITHOUT_KERNEL}[name]
    unresolved = Registry.default().query_from_hf_config(config, arch="gfx950", engine=engine)
    with pytest.raises(NoRecipeError, match=reason):
        REGISTRY.resolve(unresolved)


def test_a_layer_that_clamps_behind_the_activation_is_refused() -> None:
    config = {**FAMILIES["bailing_hybrid"][0], "expert_swiglu_limit_list": [0.0] * 5 + [4.0]}
    unresolved = Registry.default().query_from_hf_config(config, arch="gfx950", layer=5)
    assert (unresolved.activation, unresolved.swiglu_limit) == ("SwigluStep", 4.0)
    with pytest.raises(NoRecipeError, match="swiglustep"):
        REGISTRY.resolve(unresolved)
    assert REGISTRY.resolve(unresolved.model_copy(update={"activation": "Silu", "swiglu_limit": 0.0})).recipe
    other = {**FAMILIES["exaone_moe"][0], "swiglu_limits": [7.0] * 6}
    assert query(other)["activation"] == "Silu", "this type clamps before it, as AITER does"


def test_what_matches_but_lacks_a_requirement_is_said_first() -> None:
    unresolved = Registry.default().query_from_hf_config(FAMILIES["lfm2_moe"][0], arch="gfx950", engine="atom")
    with pytest.raises(NoRecipeError, match=r"^no rule for lfm2_moe with .*: needs intermediate_size at tp 1 in mult"):
        REGISTRY.resolve(unresolved)


@pytest.mark.parametrize("applies", [False, True])
def test_a_router_weight_on_the_input_is_read(applies: bool) -> None:
    config = {**FAMILIES["laguna"][0], "moe_apply_router_weight_on_input": applies}
    assert query(config)["router_weight_on_input"] is applies


@pytest.mark.parametrize("name", ["qwen3_moe", "qwen3_vl_moe", "qwen3_next"])
def test_newer_files_call_experts_local(name: str) -> None:
    config = qwen(name)
    config["num_local_experts"] = config.pop("num_experts")
    assert query(config)["num_experts"] == 32


def test_an_inner_null_does_not_hide_what_is_outside() -> None:
    config = {"model_type": "qwen3_vl_moe", "dtype": "bfloat16", "text_config": qwen("qwen3_vl_moe_text", dtype=None)}
    config["text_config"].pop("torch_dtype")  # type: ignore[attr-defined]
    assert query(config)["weight_dtype"] == "bf16"


def test_far_from_every_name_lists_none() -> None:
    with pytest.raises(QueryError, match=r"^model_type: unknown 'speech5_hifigan'$"):
        query({"model_type": "speech5_hifigan"})


ALIASES = [(entry.id, alias) for entry in BOOK.model_types.values() for alias in entry.aliases if entry.id in FAMILIES]


@pytest.mark.parametrize(("name", "alias"), ALIASES, ids=[alias for _, alias in ALIASES])
def test_a_language_model_alone_says_the_same_under_every_name(name: str, alias: str) -> None:
    config, wanted = FAMILIES[name]
    alone = {**language_model(config, model_type_of(config, BOOK)), "model_type": alias}
    found = query(alone)
    assert {field: found[field] for field in wanted} == wanted


def test_the_language_model_of_kimi_k3_alone_is_resolved_like_the_whole() -> None:
    alone = {**KIMI_K3["text_config"], "dtype": "bfloat16"}
    whole, part = (Registry.default().query_from_hf_config(item, arch="gfx950", tp=8) for item in (KIMI_K3, alone))
    assert part.model == "kimi_linear"
    assert REGISTRY.resolve(part).decision_digest == REGISTRY.resolve(whole).decision_digest
    plain = REGISTRY.resolve(Registry.default().query_from_hf_config(FAMILIES["kimi_linear"][0], arch="gfx950"))
    assert (plain.call.activation, plain.call.situ_beta) == ("Silu", None)
