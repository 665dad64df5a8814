"""A Hugging Face config.json becomes a query."""

import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import Query, QueryError, Registry
from preshuffle.registry.hf.moe_layers import layers_of
from support.book.strategies import BOOK, REGISTRY, load_overlay

GPT_OSS_120B: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "num_local_experts": 128,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "rope_type": "yarn", "truncate": False},
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": "4.55.0.dev0",
    "use_cache": True,
    "vocab_size": 201088,
}
WITHOUT = object()


def changed(**fields: Any) -> dict[str, Any]:
    merged = {**GPT_OSS_120B, **fields}
    return {name: value for name, value in merged.items() if value is not WITHOUT}


@pytest.mark.parametrize("form", ["mapping", "path", "text", "folder"])
def test_a_configuration_says_the_same_as_the_models_entry(tmp_path: Path, form: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GPT_OSS_120B))
    given: dict[str, Any] = {"mapping": GPT_OSS_120B, "path": path, "text": str(path), "folder": tmp_path}
    query = Registry.default().query_from_hf_config(given[form], arch="gfx950")
    known = BOOK.models["openai/gpt-oss-120b"].given()
    assert query.model_dump(include=set(known)) == known
    by_name = REGISTRY.resolve(Query(model="openai/gpt-oss-120b", arch="gfx950"))
    assert REGISTRY.resolve(query).decision_digest == by_name.decision_digest


def test_the_number_of_layers_is_read_too() -> None:
    entry = BOOK.model_types["gpt_oss"]
    assert layers_of(GPT_OSS_120B, entry) == 36
    with pytest.raises(QueryError, match="num_hidden_layers: missing"):
        layers_of(changed(num_hidden_layers=WITHOUT), entry)


def test_what_is_given_overrides_the_configuration() -> None:
    query = Registry.default().query_from_hf_config(
        GPT_OSS_120B, arch="gfx950", activation_dtype="fp4x2", num_experts=16, tp=2
    )
    assert (query.activation_dtype, query.num_experts, query.tp, query.top_k) == ("fp4x2", 16, 2, 4)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("/data/gpt-oss-120b/", "/data/gpt-oss-120b/"),
        ("someone/their-fine-tune", "gpt_oss"),
        ("", "gpt_oss"),
        (None, "gpt_oss"),
        (7, "gpt_oss"),
        (["x"], "gpt_oss"),
    ],
)
def test_a_fine_tune_is_known_by_its_type(name: object, model: str) -> None:
    query = Registry.default().query_from_hf_config(changed(_name_or_path=name), arch="gfx950")
    assert query.model == model
    decision = REGISTRY.resolve(query)
    assert (decision.recipe, decision.call.swiglu_limit) == ("mxfp4.gui16", 7.0)


@pytest.mark.parametrize("name", ["num_local_experts", "num_experts"])
def test_a_field_has_the_names_that_the_book_lists(name: str) -> None:
    config = changed(**{"num_local_experts": WITHOUT, name: 32})
    assert Registry.default().query_from_hf_config(config, arch="gfx950").num_experts == 32


@pytest.mark.parametrize("dtype", ["float16", ["bfloat16"], {}, 7, None, "float4"])
def test_an_odd_torch_dtype_does_not_count(dtype: object) -> None:
    assert Registry.default().query_from_hf_config(changed(torch_dtype=dtype), arch="gfx950").activation_dtype == "bf16"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "model_type: missing from the configuration; valid: gpt_oss"),
        ({"model_type": 3}, "model_type: missing from the configuration; valid: gpt_oss"),
        ({"model_type": "gpt-oss"}, "model_type: unknown 'gpt-oss'; valid: gpt_oss"),
        (changed(quantization_config=WITHOUT), "dtype: needed for unquantized experts, found None; valid: bfloat16"),
        (changed(quantization_config="mxfp4"), "quantization_config: input should be a mapping, found 'mxfp4'"),
        (changed(quantization_config={"quant_method": "exl3"}), "quantization_config.quant_method: unknown 'exl3'; v"),
        (changed(quantization_config={"quant_method": ["mxfp4"]}), "quantization_config.quant_method: unknown \"['mxf"),
        (changed(hidden_size="wide"), "hidden_size: input should be a valid integer, unable to parse string"),
        (changed(hidden_size=float("nan")), "hidden_size: input should be a finite number"),
        (changed(hidden_size=True), "hidden_size: a number is needed, found True"),
        (changed(num_local_experts=0), "num_local_experts: input should be greater than or equal to 1, found 0"),
        ([1], "config: a mapping or a path is needed, found list"),
        (None, "config: a mapping or a path is needed, found NoneType"),
    ],
)
def test_a_configuration_that_says_too_little_or_nonsense(config: Any, text: str) -> None:
    with pytest.raises(QueryError) as caught:
        Registry.default().query_from_hf_config(config, arch="gfx950")
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_the_arch_is_not_in_a_configuration() -> None:
    with pytest.raises(QueryError, match=r"^arch: missing$"):
        Registry.default().query_from_hf_config(GPT_OSS_120B)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "not valid JSON: Expecting value"),
        (b'{"model_type": "gpt_oss"', "not valid JSON: Expecting ',' delimiter"),
        (b"\xff\xfe", "not valid JSON: 'utf-8' codec"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b"[1]", "a JSON object is needed"),
        (b"null", "a JSON object is needed"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    for given in (tmp_path, path):
        with pytest.raises(QueryError) as caught:
            Registry.default().query_from_hf_config(given, arch="gfx950")
        assert str(caught.value).startswith(f"{path}: {text}")


@pytest.mark.parametrize("path", ["x" * 5000, "\0", ""])
def test_a_path_that_cannot_be_one(path: str) -> None:
    with pytest.raises(QueryError):
        Registry.default().query_from_hf_config(path, arch="gfx950")


def test_a_model_type_is_data(tmp_path: Path) -> None:
    text = """model_types:
  mine:
    fields: {hidden_size: [d_model], intermediate_size: [d_ff], num_experts: [n_experts], top_k: [k]}
    constants: {gated: false, bias: false, activation: Gelu, top_k: 1}
    evidence: [x]
"""
    registry = load_overlay(tmp_path, text)
    config = {"model_type": "mine", "d_model": 64, "d_ff": 128, "n_experts": 4, "k": 2, "dtype": "bfloat16"}
    query = registry.query_from_hf_config(config, arch="gfx950")
    assert (query.hidden_size, query.intermediate_size, query.num_experts, query.top_k) == (64, 128, 4, 2)
    assert (query.gated, query.bias, query.quant_type) == (False, False, "No")
    del config["k"]
    assert registry.query_from_hf_config(config, arch="gfx950").top_k == 1, "what holds for the whole type"
