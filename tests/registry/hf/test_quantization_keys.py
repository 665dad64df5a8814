"""Keys of a quantization section: read, harmless, or an error that names them."""

from typing import Any

import pytest

from preshuffle.registry import QueryError, Registry
from preshuffle.registry.hf import unread_notes
from support.book.configurations import CHANNEL_FP8, DEEPSEEK_V4, INT4, KIMI_K3, MXFP4_PACKED, QUARK_MXFP4
from support.book.families import FAMILIES
from support.book.quantizations import BLOCK, FP4, FP8, MODEL, PLAIN, compressed, floats, quark
from support.book.strategies import BOOK


def experts(section: Any, **given: Any) -> tuple[str | None, str | None, str | None]:
    config = {**MODEL, "quantization_config": section}
    query = Registry.default().query_from_hf_config(config, arch="gfx950", **given)
    return query.weight_dtype, query.quant_type, query.activation_dtype


def weights_of(section: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a compressed-tensors section with more keys of weights."""
    group = section["config_groups"]["group_0"]
    return {**section, "config_groups": {"group_0": {**group, "weights": {**group["weights"], **more}}}}


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({**BLOCK, "store_dtype": "mxfp4"}, "store_dtype: 'mxfp4'"),
        ({**BLOCK, "moe_quant_algo": "NVFP4"}, "moe_quant_algo: 'NVFP4'"),
        ({**BLOCK, "expert_dtype": "fp4"}, "expert_dtype: 'fp4'"),
        ({**BLOCK, "w13_layout": "interleaved"}, "w13_layout: 'interleaved'"),
        ({**BLOCK, "mtp_and_experts": {"dtype": "fp4"}}, "mtp_and_experts.dtype: 'fp4'"),
        ({**BLOCK, "weights": "mxfp4"}, "weights: 'mxfp4'"),
        ({**BLOCK, "fmt": "e5m2"}, "fmt: 'e5m2'"),
        ({**BLOCK, "routed": {"num_bits": 4}}, "routed.num_bits: 4"),
        ({"quant_method": "mxfp4", "expert_bits": 6}, "expert_bits: 6"),
        ({"quant_method": "mxfp8", "weight_block_size": [1, 16]}, "weight_block_size: [1, 16]"),
        (
            quark(FP4, None, layer_type_quant_config={"Linear": {"weight": FP8}}),
            "layer_type_quant_config.Linear.weight",
        ),
        ({**QUARK_MXFP4, "export": {"weight_format": "fake_quantized"}}, "export.weight_format: 'fake_quantized'"),
        (quark({**FP4, "symmetric": False}, None), "global_quant_config.weight.symmetric: False"),
        (
            {**CHANNEL_FP8, "transform_config": {"config_groups": {"a": {"type": "hadamard"}}}},
            "transform_config.config_g",
        ),
        (
            {**CHANNEL_FP8, "sparsity_config": {"format": "sparse-24-bitmask"}},
            "sparsity_config.format: 'sparse-24-bitmas",
        ),
        (weights_of(INT4, symmetric=False), "config_groups.group_0.weights.symmetric: False"),
        (weights_of(INT4, actorder="group"), "config_groups.group_0.weights.actorder: 'group'"),
        (weights_of(INT4, actorder="dynamic"), "config_groups.group_0.weights.actorder: 'dynamic'"),
        (weights_of(INT4, zp_dtype="torch.int8"), "config_groups.group_0.weights.zp_dtype: 'torch.int8'"),
        ({**CHANNEL_FP8, "format": "marlin-24"}, "format: 'marlin-24'"),
        ({**BLOCK, "transposed": True}, "transposed: True"),
        ({**BLOCK, "online_hadamard": 32}, "online_hadamard: 32"),
        (
            quark([{**FP8, "qscheme": "per_tensor"}, {"dtype": "int4", "qscheme": "per_channel", "group_zp": 1}], FP8),
            "global_quant_config.weight.1.group_zp: 1",
        ),
    ],
)
def test_a_key_that_may_change_the_experts_is_an_error_that_names_it(section: dict[str, Any], key: str) -> None:
    with pytest.raises(QueryError) as caught:
        experts(section)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"quantization_config.{key}")
    assert "is not read here" in problem.message
    stated = experts(section, weight_dtype="fp8", quant_type="per_1x128", activation_dtype="fp8")
    assert stated == ("fp8", "per_1x128", "fp8"), "who says it beside the configuration has decided"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_dtype", "fp4"),
        ("moe_expert_dtype", "fp4"),
        ("routed_experts_quant_method", "mxfp4"),
        ("moe_quant_config", {"bits": 4}),
        ("quantization", {"quant_algo": "NVFP4"}),
        ("hf_quant_config", {"quantization": {"quant_algo": "NVFP4"}}),
        ("quant_config", {"quant_method": "awq"}),
        ("store_dtype", "mxfp4"),
    ],
)
def test_a_key_beside_the_section_is_an_error_that_names_it(key: str, value: Any) -> None:
    for section in (None, BLOCK):
        config = {**MODEL, key: value, "quantization_config": section}
        with pytest.raises(QueryError) as caught:
            Registry.default().query_from_hf_config(config, arch="gfx950")
        (problem,) = caught.value.problems
        assert problem.field == key
        assert "is not read here" in problem.message
        harmless: Any
        for harmless in (None, {}, "", "bfloat16"):
            assert Registry.default().query_from_hf_config({**config, key: harmless}, arch="gfx950")


def test_several_keys_are_one_error() -> None:
    with pytest.raises(QueryError) as caught:
        experts({**BLOCK, "store_dtype": "mxfp4", "moe_quant_algo": "NVFP4"})
    (problem,) = caught.value.problems
    assert problem.field == "quantization_config.store_dtype"
    assert "nor are quantization_config.moe_quant_algo" in problem.message


@pytest.mark.parametrize(
    "section",
    [
        {**BLOCK, "store_dtype": None},
        {**BLOCK, "fmt": "e4m3", "scale_fmt": "ue8m0", "kv_cache_scheme": {"num_bits": 8}, "dequantize": False},
        {**BLOCK, "colour": "red", "owner": {"name": "me"}},
        {**BLOCK, "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]},
        {**BLOCK, "attn_dtype": "fp8", "vision_tower": {"quant_algo": "int8"}, "mtp": {"weight_dtype": "bf16"}},
    ],
)
def test_what_says_nothing_of_the_experts_does_no_harm(section: dict[str, Any]) -> None:
    assert experts(section) == ("fp8", "per_1x128", "fp8")


@pytest.mark.parametrize("section", [QUARK_MXFP4, INT4, CHANNEL_FP8, MXFP4_PACKED])
def test_what_makers_write_is_known(section: dict[str, Any]) -> None:
    config = {**MODEL, "quantization_config": section}
    assert experts(section)[0] is not None
    assert unread_notes(config, BOOK) == ()


@pytest.mark.parametrize("order", [None, "weight", "static"])
def test_an_order_of_columns_that_is_stored_as_it_runs_does_no_harm(order: str | None) -> None:
    assert experts(weights_of(INT4, actorder=order))[0] == "i4x2"


def test_a_dense_sparsity_section_does_no_harm() -> None:
    dense = {
        "format": "dense",
        "sparsity_structure": "unstructured",
        "global_sparsity": 0.1,
        "targets": [],
        "ignore": [],
    }
    assert experts({**CHANNEL_FP8, "sparsity_config": dense})[0] == "fp8"


def test_other_keys_are_notes() -> None:
    config = {**MODEL, "quantization_config": {**BLOCK, "colour": "red"}}
    assert unread_notes(config, BOOK) == ("quantization_config.colour is not read here",)


def test_keys_of_other_modules_do_not_count() -> None:
    attention = {"weight": {"dtype": "int4", "w13_layout": "odd"}}
    assert experts(quark(FP4, FP4, layer_quant_config={"*self_attn*": attention}))[0] == "fp4x2"
    section = {**BLOCK, "store_dtype": "mxfp4", "modules_to_not_convert": ["mlp.experts"]}
    assert experts(section) == PLAIN, "the experts are not quantized at all"


@pytest.mark.parametrize(
    "section",
    [
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"targets": ["re:.*self_attn.*"], "weights": floats(8, "channel")}},
        },
        {
            "quant_method": "quark",
            "global_quant_config": None,
            "layer_quant_config": {"*self_attn*": {"weight": FP8, "input_tensors": FP8}},
        },
        {
            "quant_method": "quark",
            "global_quant_config": {"weight": None, "input_tensors": None},
            "layer_quant_config": {"*shared_expert.*": {"weight": FP8, "input_tensors": FP8}},
        },
        {**compressed(floats(8, "channel"), {"strategy": "token"}), "ignore": ["re:.*mlp.experts.*"]},
        {**BLOCK, "ignored_layers": ["mlp.experts"]},
        {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["lm_head", "mlp.experts"]},
    ],
)
def test_settings_that_leave_the_experts_out_mean_plain_experts(section: dict[str, Any]) -> None:
    assert experts(section) == PLAIN


def test_a_group_by_a_class_that_may_be_the_experts_is_not_guessed() -> None:
    group = {"targets": ["MoEGate"], "weights": floats(8, "channel"), "input_activations": None}
    with pytest.raises(QueryError, match="no known form of compressed-tensors"):
        experts({"quant_method": "compressed-tensors", "config_groups": {"group_0": group}})


def test_a_model_types_own_forms_read_keys_too() -> None:
    registry = Registry.default()
    config = {**DEEPSEEK_V4, "quantization_config": {**BLOCK, "moe_quant_algo": "NVFP4"}}
    with pytest.raises(QueryError, match=r"moe_quant_algo: 'NVFP4' is not read here"):
        registry.query_from_hf_config(config, arch="gfx950")
    assert registry.query_from_hf_config(KIMI_K3, arch="gfx950").weight_dtype == "fp4x2"
    newer, _ = FAMILIES["deepseek_v41"]
    section = {**newer["quantization_config"], "moe_quant_algo": "NVFP4"}
    with pytest.raises(QueryError, match="moe_quant_algo"):
        registry.query_from_hf_config({**newer, "quantization_config": section}, arch="gfx950")


@pytest.mark.parametrize(("dtype", "wanted"), [("fp4", ("fp4x2", "per_1x32")), ("fp8", ("fp8", "per_1x128"))])
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("name", ["deepseek_v4", "deepseek_v41"])
def test_the_experts_dtype_may_stand_in_the_section(
    name: str, outside: bool, dtype: str, wanted: tuple[str, str]
) -> None:
    section = {**BLOCK, "expert_dtype": dtype, "scale_fmt": "ue8m0"}
    config = {**DEEPSEEK_V4, "model_type": name, "quantization_config": section}
    config["expert_dtype"] = dtype if outside else None
    query = Registry.default().query_from_hf_config(config, arch="gfx950")
    assert (query.weight_dtype, query.quant_type) == wanted


def test_excluded_experts_count_before_a_model_types_own_forms() -> None:
    names = [f"layers.{layer}.ffn.experts" for layer in range(43)]
    section = {**DEEPSEEK_V4["quantization_config"], "modules_to_not_convert": names}  # type: ignore[dict-item]
    config = {**DEEPSEEK_V4, "quantization_config": section}
    assert Registry.default().query_from_hf_config(config, arch="gfx950").quant_type == "No"


HALF = {
    "targets": ["re:.*experts.*(gate|up)_proj"],
    "weights": floats(8, "channel"),
    "input_activations": {"strategy": "token"},
}


@pytest.mark.parametrize(
    "section",
    [
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": HALF}},
        {
            "quant_method": "compressed-tensors",
            "config_groups": {
                "group_0": HALF,
                "group_1": {
                    "targets": ["re:.*experts.*down_proj"],
                    "weights": floats(4, "group", group_size=32),
                    "input_activations": None,
                },
            },
        },
        quark(FP4, FP4, layer_quant_config={"*experts*down_proj": {"weight": {**FP8, "qscheme": "per_channel"}}}),
    ],
)
def test_linear_layers_that_differ_are_no_layer_of_one_kind(section: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match=r"the experts' linear layers are quantized differently: .*_proj is not"):
        experts(section)


def test_linear_layers_with_equal_settings_of_their_own_are_one_kind() -> None:
    own = {f"*experts*{name}_proj": {"weight": FP4, "input_tensors": FP4} for name in ("gate", "up", "down")}
    assert experts(quark({**FP8, "qscheme": "per_tensor"}, FP8, layer_quant_config=own)) == (
        "fp4x2",
        "per_1x32",
        "fp4x2",
    )
