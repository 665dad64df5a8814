"""quantization_config: what each method's forms say of the experts, exclude lists, and what is not known."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preshuffle.registry import QueryError, Registry
from preshuffle.registry.hf import query_of
from preshuffle.registry.hf.module_patterns import matches_module
from support.book.quantizations import BLOCK, CASES, FP4, FP8, MODEL, PLAIN, compressed, floats, quark
from support.book.strategies import BOOK, load_overlay


def experts(section: Any, layer: int | None = None, **changed: Any) -> tuple[str | None, str | None, str | None]:
    query = Registry.default().query_from_hf_config(
        {**MODEL, "quantization_config": section, **changed}, arch="gfx950", layer=layer
    )
    return query.weight_dtype, query.quant_type, query.activation_dtype


@pytest.mark.parametrize(("section", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_a_section_says_of_the_experts(section: Any, wanted: tuple[str, str, str]) -> None:
    assert experts(section) == wanted


def test_every_method_of_the_book_is_tested() -> None:
    methods = {section["quant_method"] for _, section, _ in CASES if section}
    assert {"none", *methods} == {method for method, entry in BOOK.quantizations.items() if entry.cases}


REFUSED = sorted(method for method, entry in BOOK.quantizations.items() if entry.refused)


@pytest.mark.parametrize("method", REFUSED)
def test_a_method_that_no_kernel_runs_is_refused_with_the_reason(method: str) -> None:
    with pytest.raises(QueryError) as caught:
        experts({"quant_method": method, "bits": 4, "group_size": 128})
    (problem,) = caught.value.problems
    assert problem.field == "quantization_config.quant_method"
    assert problem.message == f"{method!r}: {BOOK.quantizations[method].refused}"
    assert method not in problem.valid


@pytest.mark.parametrize("method", REFUSED)
def test_experts_that_such_a_method_leaves_out_are_not_quantized(method: str) -> None:
    for name in BOOK.quantizations[method].exclude:
        left_out: Any = {"-:.*mlp.experts.*": {}} if name == "dynamic" else ["lm_head", "mlp.experts"]
        assert experts({"quant_method": method, name: left_out}) == PLAIN, name
        with pytest.raises(QueryError, match=method):
            experts({"quant_method": method, name: {"-:.*self_attn.*": {}} if name == "dynamic" else ["self_attn"]})


def test_the_older_name_of_the_section_is_read() -> None:
    section = compressed(floats(8, "channel"), {"strategy": "token", "dynamic": True})
    for config in ({"compression_config": section}, {"compression_config": section, "quantization_config": None}):
        query = Registry.default().query_from_hf_config({**MODEL, **config}, arch="gfx950")
        assert (query.weight_dtype, query.quant_type) == ("fp8", "per_Token")
    both = {**MODEL, "compression_config": section, "quantization_config": BLOCK}
    assert Registry.default().query_from_hf_config(both, arch="gfx950").quant_type == "per_1x128"


def test_the_producer_is_the_method_or_who_the_model_type_names() -> None:
    config = {**MODEL, "quantization_config": quark(FP4, None)}
    assert Registry.default().query_from_hf_config(config, arch="gfx950").producer == "quark"
    assert Registry.default().query_from_hf_config(config, arch="gfx950", producer="mine").producer == "mine"
    assert Registry.default().query_from_hf_config(MODEL, arch="gfx950").producer is None
    fp8 = {**MODEL, "model_type": "deepseek_v3", "n_routed_experts": 4, "quantization_config": BLOCK}
    assert Registry.default().query_from_hf_config(fp8, arch="gfx950").producer == "deepseek"


ALL = "model.layers.{}.mlp.experts"


@pytest.mark.parametrize(
    "excluded",
    [
        [ALL.format(layer) for layer in range(4)],
        ["model.layers"],
        ["mlp.experts", "lm_head"],
        ["model.layers.*.mlp.experts"],
        ["*experts*"],
        ["re:.*mlp\\.experts.*"],
        [f"{ALL.format(layer)}.0.{part}_proj" for layer in range(4) for part in ("gate", "up", "down")],
        ["re:.*\\.(gate|up)_proj", "re:.*\\.down_proj"],
    ],
)
@pytest.mark.parametrize("method", ["fp8", "quark", "compressed-tensors"])
def test_excluded_experts_are_not_quantized(method: str, excluded: list[str]) -> None:
    section = deepcopy(next(section for _, section, _ in CASES if section and section["quant_method"] == method))
    section[BOOK.quantizations[method].exclude[0]] = excluded
    assert experts(section) == PLAIN


@pytest.mark.parametrize(
    "excluded",
    [
        ["lm_head", "model.layers.*.self_attn", "model.layers.*.mlp.gate"],
        ["gate", "mlp.gate", "self_attn"],
        ["re:.*mlp\\.(gate|up|down)_proj.*", "re:.*shared_experts.*"],
        ["model.layers.4.mlp.experts", "model.layers.10.mlp.experts"],
        [f"{ALL.format(layer)}.0.gate_proj" for layer in range(4)],
        ["re:(", "re:[a-", None, 7],
        "model.layers",
    ],
)
def test_what_excludes_other_modules_leaves_the_experts_quantized(excluded: Any) -> None:
    assert experts({**BLOCK, "modules_to_not_convert": excluded}) == ("fp8", "per_1x128", "fp8")


def test_layers_that_differ_must_be_told_apart() -> None:
    section = {**BLOCK, "modules_to_not_convert": [ALL.format(0), ALL.format(3)]}
    with pytest.raises(QueryError) as caught:
        experts(section)
    text = "experts differ between layers (layers 0, 3: not quantized; layers 1-2: fp8 per_1x128); say which"
    assert str(caught.value) == f"quantization_config: {text}; valid: layer=0 (--hf-layer 0)"
    assert experts(section, layer=3) == PLAIN
    assert experts(section, layer=2) == ("fp8", "per_1x128", "fp8")
    with pytest.raises(QueryError, match="layer: layer 4 has no experts; valid: 0-3"):
        experts(section, layer=4)


def test_a_section_of_the_experts_own_counts_before_that_of_all() -> None:
    attention = {"weight": {**FP8, "qscheme": "per_channel"}, "input_tensors": {**FP8, "is_dynamic": True}}
    own = {"*experts*": {"weight": FP4, "input_tensors": FP4}, "*self_attn*": attention}
    assert experts(quark({**FP8, "qscheme": "per_tensor"}, FP8, layer_quant_config=own))[:2] == ("fp4x2", "per_1x32")
    only = {"*self_attn*": attention}
    assert experts(quark(FP4, None, layer_quant_config=only))[:2] == ("fp4x2", "per_1x32")


def test_a_group_that_names_the_experts_counts_before_their_class() -> None:
    section = compressed(floats(8, "channel"), {"strategy": "token"})
    group = {"targets": ["re:.*experts.*"], "weights": floats(4, "group", group_size=32), "input_activations": None}
    section["config_groups"]["group_1"] = group
    assert experts(section) == ("fp4x2", "per_1x32", "bf16")


@pytest.mark.parametrize(
    ("section", "start"),
    [
        ({"quant_method": "exl3", "bits": 4}, "quantization_config.quant_method: unknown 'exl3'; valid: "),
        ({"bits": 4}, "quantization_config.quant_method: missing from the configuration"),
        ([1], "quantization_config: input should be a mapping, found [1]"),
        (
            {"quant_method": "fp8", "weight_block_size": [64, 64]},
            "quantization_config: no known form of fp8: weight_block_size [64, 64], activation_scheme null; valid: w",
        ),
        (
            quark({"dtype": "int8", "qscheme": "per_channel"}, None),
            'quantization_config.global_quant_config: no known form of quark: weight.dtype "int8", weight.group_size n',
        ),
        (
            compressed({"type": "int", "num_bits": 8, "strategy": "channel"}, None),
            'quantization_config.config_groups.group_0: no known form of compressed-tensors: weights.type "int"',
        ),
        (quark([FP8, FP4], None), "quantization_config.global_quant_config: no known form of quark: weight.dtype null"),
        (
            {"quant_method": "quark"},
            "quantization_config.global_quant_config: no known form of quark: weight.dtype null",
        ),
    ],
)
def test_a_form_that_the_book_does_not_know_is_named(section: Any, start: str) -> None:
    with pytest.raises(QueryError) as caught:
        experts(section)
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_true_is_not_one() -> None:
    with pytest.raises(QueryError, match="no known form of compressed-tensors"):
        experts(compressed(floats(8, "channel", num_bits=True), {"strategy": "token"}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted(
    {
        part
        for known in BOOK.quantizations.values()
        for case in known.cases
        for path in case.when
        for part in [*path.split("."), known.named or "x", known.grouped or "x", known.general or "x", *known.exclude]
    }
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # busy machines make text slowly
@given(
    st.sampled_from(sorted(BOOK.quantizations)), st.dictionaries(st.sampled_from([*KEYS, "targets"]), JSON, max_size=5)
)
def test_nonsense_is_an_answer_or_one_clear_error(method: str, section: dict[str, Any]) -> None:
    problems: tuple[object, ...] = ()
    found: tuple[object, ...] = ()
    try:
        found = experts({"quant_method": method, **section})
    except QueryError as error:
        problems = error.problems
    assert len(problems) == 1 or (len(found) == 3 and None not in found)


def test_a_method_is_data(tmp_path: Any) -> None:
    registry = load_overlay(
        tmp_path,
        """quantizations:
  acme:
    exclude: [skip]
    cases:
      - when: {bits: [8, 9], scheme.kind: [null]}
        facts: {weight_dtype: fp8, quant_type: per_Token, activation_dtype: bf16}
    evidence: [x]
""",
    )
    config = {**MODEL, "quantization_config": {"quant_method": "acme", "bits": 9}}
    query = registry.query_from_hf_config(config, arch="gfx950")
    assert (query.quant_type, query.activation_dtype, query.producer) == ("per_Token", "bf16", "acme")
    config["quantization_config"] |= {"skip": ["mlp"]}
    assert registry.query_from_hf_config(config, arch="gfx950").quant_type == "No"


@pytest.mark.parametrize(
    ("pattern", "module", "wanted"),
    [
        ("model.layers.3", "model.layers.3.mlp.experts.0.w1", True),
        ("model.layers.3", "model.layers.30.mlp.experts.0.w1", False),
        ("gate", "model.layers.3.mlp.experts.0.gate_proj", False),
        ("re:gate", "model.layers.3.mlp.experts.0.gate_proj", False),
        ("re:.*gate", "model.layers.3.mlp.experts.0.gate_proj", True),
        ("*.w1", "layers.3.ffn.experts.0.w1", True),
        ("", "layers.3", False),
    ],
)
def test_patterns(pattern: str, module: str, wanted: bool) -> None:
    assert matches_module(pattern, module) is wanted


@pytest.mark.parametrize(("dynamic", "wanted"), [(True, "dynamic"), (False, "static"), (None, None)])
def test_whether_scales_of_activations_are_static(dynamic: bool | None, wanted: str | None) -> None:
    number = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}
    group = {"targets": ["Linear"], "weights": number, "input_activations": {**number, "dynamic": dynamic}}
    config = {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_local_experts": 8,
        "num_experts_per_tok": 2, "num_hidden_layers": 2, "hidden_act": "silu",
        "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}},
    }  # fmt: skip
    assert query_of(config, BOOK, {"arch": "gfx942"}).activation_scales == wanted
