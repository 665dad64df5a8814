"""config.json bodies of the families that engines run, as their makers publish them, become queries."""

from typing import Any

import pytest

from preshuffle.registry import Query, QueryError, Registry
from preshuffle.registry.algebra.shard import cut, split_experts
from preshuffle.registry.base.words import GROUP
from preshuffle.registry.hf.moe_layers import moe_layers_of
from support.book.configurations import DEEPSEEK, DEEPSEEK_V4, KIMI_K3, MINIMAX_M3, MIXTRAL, PUBLISHED, QWEN3
from support.book.families import FAMILIES, WITHOUT_KERNEL
from support.book.strategies import BOOK, REGISTRY


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_says_what_the_models_entry_says(name: str) -> None:
    config, model = PUBLISHED[name]
    query = Registry.default().query_from_hf_config(config, arch="gfx950")
    known = BOOK.models[model].given()
    said = query.model_dump(include=set(known))
    assert {field: value for field, value in said.items() if field != "producer"} == {
        field: value for field, value in known.items() if field != "producer"
    }
    assert query.gated
    assert (query.producer is None) == ("quantization_config" not in str(config))


def test_every_model_type_has_a_published_configuration() -> None:
    tested = {str(config["model_type"]) for config, _ in PUBLISHED.values()} | {*FAMILIES, *WITHOUT_KERNEL}
    assert set(BOOK.model_types) - tested == {"gpt_oss", "mimo_v2"}


@pytest.mark.parametrize("model", BOOK.models)
def test_every_model_says_all_that_a_query_needs(model: str) -> None:
    entry = BOOK.models[model]
    if model in BOOK.model_types:
        return  # stands for a configuration without a known name, which says the rest
    needed = {"weight_dtype", "quant_type", "activation", "activation_dtype", "gate_up_order", "bias"}
    needed |= {"hidden_size", "intermediate_size", "num_experts", "top_k"}
    assert needed <= set(entry.given())
    assert (entry.producer is None) == (entry.quant_type == "No")
    assert entry.evidence
    assert (entry.swiglu_alpha is not None) == (entry.activation == "Swiglu")
    assert (entry.situ_beta is not None) == (entry.activation == "Situv2")


@pytest.mark.parametrize("model", BOOK.models)
def test_what_people_run_can_be_cut(model: str) -> None:
    entry = BOOK.models[model]
    group = GROUP.get(entry.quant_type or "No", 1)
    assert all(cut(entry.intermediate_size or 0, tp, group) for tp in entry.tp_seen)
    assert all(split_experts(entry.num_experts or 0, ep) for ep in entry.ep_seen)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("deepseek-r1", (3, 60, 58)),
        ("kimi-k3", (1, 92, 92)),
        ("minimax-m3", (3, 59, 57)),
        ("glm-5", (3, 77, 75)),
        ("llama4", (1, 47, 24)),
        ("qwen3-235b", (0, 93, 94)),
        ("mimo", (1, 47, 47)),
        ("deepseek-v4-flash", (0, 42, 43)),
    ],
)
def test_which_layers_have_experts(name: str, layers: tuple[int, int, int]) -> None:
    config, _ = PUBLISHED[name]
    entry = BOOK.model_types[config["model_type"]]
    found = moe_layers_of(config.get("text_config", config), entry)
    assert (found[0], found[-1], len(found)) == layers


def test_lists_of_layers_count_too() -> None:
    qwen = BOOK.model_types["qwen3_moe"]
    config = {"num_hidden_layers": 8, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    assert moe_layers_of(config, qwen) == (1, 5, 7)
    llama = BOOK.model_types["llama4"]
    assert moe_layers_of({"num_hidden_layers": 8, "moe_layers": [2, 5]}, llama) == (2, 5)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({**DEEPSEEK, "hidden_act": "relu7"}, "hidden_act: unknown 'relu7'; valid: relu"),
        ({**DEEPSEEK, "hidden_act": 7}, "hidden_act: unknown 7; valid: silu"),
        ({**MIXTRAL, "torch_dtype": "float32"}, "dtype: needed for unquantized experts, found 'float32'; valid: bflo"),
        (
            {**KIMI_K3, "text_config": {**KIMI_K3["text_config"], "activation_situ_beta": 2.0}},
            "activation_situ_beta: 2.0, and the book has situ_beta 4.0 for kimi_k3; valid: an entry of your own for th",
        ),
        (
            {**MINIMAX_M3, "text_config": {**MINIMAX_M3["text_config"], "swiglu_alpha": 1.5}},
            "swiglu_alpha: 1.5, and the book has swiglu_alpha 1.702 for minimax_m3_vl; valid: an entry of your own",
        ),
        (
            {name: value for name, value in DEEPSEEK_V4.items() if name != "expert_dtype"},
            'config: no known form of deepseek_v4: expert_dtype null, quantization_config.quant_method "fp8"',
        ),
        ({**DEEPSEEK_V4, "expert_dtype": "int4"}, 'config: no known form of deepseek_v4: expert_dtype "int4"'),
        ({**DEEPSEEK, "first_k_dense_replace": 61}, "num_hidden_layers: the configuration has no layer with experts"),
    ],
)
def test_what_is_not_known_is_said(config: dict[str, Any], text: str) -> None:
    with pytest.raises(QueryError) as caught:
        Registry.default().query_from_hf_config(config, arch="gfx950")
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_a_configuration_without_a_name_is_resolved_like_the_named_model() -> None:
    config, model = PUBLISHED["kimi-k3"]
    query = Registry.default().query_from_hf_config(config, arch="gfx950", tp=8)
    assert query.model == "kimi_k3"
    decision = REGISTRY.resolve(query)
    assert decision.decision_digest == REGISTRY.resolve(Query(model=model, arch="gfx950", tp=8)).decision_digest
    assert (decision.call.situ_beta, decision.call.situ_linear_beta) == (4.0, 25.0)


@pytest.mark.parametrize(("name", "alias"), [("qwen3.5", "qwen3_5_moe_text"), ("llama4", "llama4_text")])
def test_a_language_model_alone_says_the_same(name: str, alias: str) -> None:
    config, _ = PUBLISHED[name]
    outer = {key: config[key] for key in ("quantization_config", "torch_dtype", "dtype") if key in config}
    alone = {**outer, **config["text_config"], "model_type": alias}
    whole = Registry.default().query_from_hf_config(config, arch="gfx950")
    assert Registry.default().query_from_hf_config(alone, arch="gfx950") == whole.model_copy(
        update={"model": config["model_type"]}
    )


def test_a_model_inside_a_model_that_sees() -> None:
    config = {"model_type": "qwen3_vl_moe", "text_config": {**QWEN3, "torch_dtype": "bfloat16"}}
    query = Registry.default().query_from_hf_config(config, arch="gfx950")
    assert (query.weight_dtype, query.quant_type, query.intermediate_size) == ("fp8", "per_1x128", 1536)
    assert (query.num_experts, query.top_k) == (128, 8)


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("Qwen3.8-2.4T", "Qwen/Qwen3.8-2.4T-A95B"),
        ("acme/Qwen3.8-2.4T-MXFP4", "amd/Qwen3.8-2.4T-A95B-Quark-MXFP4"),
        ("MiMo-V2.5-FP4-DFlash", "XiaomiMiMo/MiMo-V2.5-FP4-DFlash"),
        ("MiMo-V2.5-Pro-FP4-DFlash", "XiaomiMiMo/MiMo-V2.5-Pro-FP4-DFlash"),
        ("Llama-4-Scout-17B-16E-Instruct-MXFP4", "amd/Llama-4-Scout-17B-16E-Instruct-MXFP4"),
        ("Nemotron-3-Nano-30B-A3B-FP8", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8"),
        ("Qwen3-VL-235B-A22B-FP8", "Qwen/Qwen3-VL-235B-A22B-Instruct-FP8"),
        ("Qwen3-Omni-30B-A3B", "Qwen/Qwen3-Omni-30B-A3B-Instruct"),
        ("DeepSeek-R1-MXFP4-Preview", "amd/DeepSeek-R1-0528-MXFP4-v2"),
        ("/models/DeepSeek-R1", "deepseek-ai/DeepSeek-R1-0528"),
        ("gpt-oss-120b", "openai/gpt-oss-120b"),
    ],
)
def test_a_short_name_is_any_owners(written: str, model: str) -> None:
    entry = BOOK.model_names.find(written)
    assert entry is not None
    assert entry.id == model


@pytest.mark.parametrize("written", ["DeepSeek-R1/", "R1", "Seek-R1", "models/Deep", "x/y/DeepSeek-R9"])
def test_a_part_of_a_name_is_no_name(written: str) -> None:
    entry = BOOK.model_names.find(written)
    assert (entry is None) == (written != "DeepSeek-R1/")
