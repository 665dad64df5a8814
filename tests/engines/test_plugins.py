"""Plugins that the engines' own code loads, around models that the engines' own loaders load and run."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.engines.loads.run import load
from support.engines.trees import ENGINES, RELEASES, missing
from support.service.server import running_server

pytestmark = pytest.mark.engines
GPT_OSS = "gpt-oss-120b gfx950 tp2"
MODELS = (GPT_OSS, "gpt-oss-120b gfx950 tp1 ep2", "deepseek-r1 gfx950 tp2", "qwen3-235b-mxfp4 gfx950 tp2")
LOST_TAGS = {"sglang": ("qwen3-235b gfx950 tp2",), "atom": ("glm-4.7-fp8 gfx950 tp2",)}
"""Layers on which the engine is known to lose AITER's tag."""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if reason := missing(name):
        pytest.skip(reason)
    return name


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("service") / "store.db") as server:
        yield server.url


REPLACED = {
    "vllm": (
        *("gpt-oss-120b gfx950 tp2", "deepseek-r1 gfx950 tp2", "qwen3-30b gfx950 tp8", "deepseek-v4 gfx950 tp2"),
        *("qwen3-235b gfx950 tp2", "glm-4.7-fp8 gfx950 tp2"),
    ),
    "sglang": ("gpt-oss-120b gfx950 tp2",),
    "atom": ("deepseek-v4 gfx950 tp2",),
}
"""Layers that replace mode lays out itself."""
KEPT = {
    "vllm": ("mixtral-static gfx950 tp2", "the engine's own conversion is kept: "),
    "sglang": ("deepseek-r1 gfx950 tp2", "makes more in it than the weights' layout"),
    "atom": (GPT_OSS, "the model has moved its rows before"),
}
"""Layers that it does not, with the reason."""


def two(case: str) -> tuple[str, ...]:
    return (case, case)


@pytest.mark.parametrize("case", MODELS)
def test_shadow_finds_nothing_where_the_engine_is_right(engine: str, case: str) -> None:
    seen = load(engine, two(case), "shadow")
    counts = seen["counts"]
    assert (counts["layers"], counts["called"]) == (2, 2), seen
    assert counts.keys() & {"errors", "differs", "undecided", "other calls"} == set(), seen["log"]
    for verdicts in seen["verdicts"].values():
        assert verdicts["w13_weight"] == verdicts["w2_weight"] == "equal"
        assert {role for role, word in verdicts.items() if word != "equal"} <= {"w13_input_scale", "w2_input_scale"}
    assert [layer["query"]["engine"]["name"] for layer in seen["observations"].values()] == [engine] * 2
    assert all(one == {} for one in seen["unchecked"].values())


def test_shadow_leaves_the_engines_own_bytes_and_objects(engine: str) -> None:
    """Parameters with classes, strides, attributes, tags and bytes, and every object of the method, are the same."""
    off, shadow = load(engine, two(GPT_OSS)), load(engine, two(GPT_OSS), "shadow")
    assert off["plugin"] is None
    assert off["log"] == []
    assert off["states"] == shadow["states"]
    assert off["calls"] == shadow["calls"] == 4


def test_the_first_call_of_every_layer_is_reported_with_its_arguments(engine: str) -> None:
    seen = load(engine, two(GPT_OSS), "shadow")
    for layer in seen["observations"].values():
        applied = layer["applied"]
        assert applied["gate_mode"] in ("separated", "interleave")
        assert (applied["hidden_pad"] > 0, applied["intermediate_pad"] > 0, applied["bias_passed"]) == (True,) * 3
        assert applied["tensors"]["w13_weight"]["layout"] != "plain"
        assert applied["tensors"]["w13_weight"]["is_shuffled"] is True
        assert applied["tensors"]["w13_weight"]["dtype"] == "fp4x2"
        assert applied["tensors"].keys() >= {"w2_weight_scale", "w13_bias", "w2_bias"}
        assert (layer["query"]["quant_type"], layer["query"]["activation"]) == ("per_1x32", "Swiglu")
    assert seen["sent"] == 2, "once when the layers are loaded, once when all were called"


def test_expert_parallel_layers_report_their_mask(engine: str) -> None:
    seen = load(engine, two("gpt-oss-120b gfx950 tp1 ep2"), "shadow")
    for layer in seen["observations"].values():
        assert layer["applied"]["expert_map"] == "mask"
        assert layer["applied"]["mask_ones"] == [2]


def test_a_wrong_layout_is_reported_as_what_it_is(engine: str, service: str) -> None:
    """AITER's functions are made to leave rows as they are, with the tag on them."""
    where = (("PRESHUFFLE_SERVICE_URL", service), ("PRESHUFFLE_SERVICE_DEPLOYMENT", f"{engine}-wrong"))
    seen = load(engine, two(GPT_OSS), "shadow", ("shuffle",), None, where)
    assert {verdicts["w13_weight"] for verdicts in seen["verdicts"].values()} == {"differs"}
    for layer in seen["observations"].values():
        assert layer["applied"]["tensors"]["w13_weight"]["layout"] == "plain"
    assert any("w13_weight differs from the registry's: " in line for line in seen["log"])
    assert any("the layers as loaded: mismatch" in line and "; service)" in line for line in seen["log"])


def test_a_wrong_call_is_reported(engine: str, service: str) -> None:
    where = (("PRESHUFFLE_SERVICE_URL", service), ("PRESHUFFLE_SERVICE_DEPLOYMENT", f"{engine}-call"))
    seen = load(engine, two(GPT_OSS), "shadow", ("calls",), None, where)
    assert seen["counts"]["other calls"] == 2
    for differences in seen["call_differences"].values():
        assert any(one.startswith("gate_mode is ") for one in differences)
    first, last = [line for line in seen["log"] if "the layers as loaded: " in line]
    assert "mismatch" not in first
    assert "mismatch" in last
    assert "; service)" in last


def test_a_stage_of_a_pipeline_reports_beside_the_others(engine: str, service: str) -> None:
    where = (("PRESHUFFLE_SERVICE_URL", service), ("PRESHUFFLE_SERVICE_DEPLOYMENT", f"{engine}-stages"))
    settings = (*where, ("PRESHUFFLE_SERVICE_GOODBYE", "false"))
    for faults in (("stage",), ()):  # the second is a replica without stages, which replaces stage 0
        assert load(engine, two(GPT_OSS), "shadow", faults, None, settings)["counts"].get("errors", 0) == 0
    shown = httpx.get(f"{service}/v1/deployments/{engine}-stages").json()
    stages = {replica["replica"]: replica["pipeline"] for replica in shown["replicas"]}
    assert stages == {0: None, 1024: {"stage": 1, "stages": 2}}
    assert [group["layers"] for replica in shown["replicas"] for group in replica["groups"]] == ["0-1", "0-1"]


def test_errors_of_the_plugin_do_not_reach_the_engine(engine: str) -> None:
    off, failing = load(engine, two(GPT_OSS)), load(engine, two(GPT_OSS), "shadow", ("plugin",))
    assert failing["counts"]["errors"] == 2
    assert failing["states"] == off["states"]
    assert failing["calls"] == 4
    assert any("the plugin failed; the engine goes on" in line for line in failing["log"])


def test_another_release_is_refused_with_the_list(engine: str) -> None:
    seen = load(engine, two(GPT_OSS), "shadow", (), "99.0.0")
    assert seen["plugin"] is None
    (line,) = seen["log"]
    assert f"the plugin was not written for {engine} 99.0.0, only for: " in line
    assert RELEASES[engine] in line
    assert seen["states"] == load(engine, two(GPT_OSS))["states"]


@pytest.mark.parametrize("engine", LOST_TAGS, indirect=True)
def test_a_lost_tag_is_told_of_the_layer_and_of_its_call(engine: str) -> None:
    (case,) = LOST_TAGS[engine]
    seen = load(engine, two(case), "shadow")
    assert seen["counts"]["differs"] == 4
    assert seen["counts"]["other calls"] == 2
    for differences in seen["call_differences"].values():
        assert {one.split()[0] for one in differences} == {"w13_weight.is_shuffled", "w2_weight.is_shuffled"}


@pytest.mark.parametrize(
    ("engine", "case"), [(name, case) for name, cases in REPLACED.items() for case in cases], indirect=["engine"]
)
def test_a_replaced_layer_is_in_the_state_that_its_engine_leaves(engine: str, case: str) -> None:
    """Names, classes, dtypes, shapes, strides, attributes, tags and bytes of all tensors; kernel objects; the call."""
    off, replaced = load(engine, (case,)), load(engine, (case,), "replace")
    assert replaced["counts"]["replaced"] == replaced["counts"]["called"] == 1, replaced["log"]
    assert replaced["counts"].keys() & {"errors", "differs", "kept", "other calls"} == set(), replaced["log"]
    if engine == "vllm":
        assert replaced["states"] == off["states"]
        return
    (own,), (ours,) = off["states"], replaced["states"]
    assert own.pop("method") == ours.pop("method")
    assert own.keys() == ours.keys()
    for name in own:
        kind, dtype, *geometry, attributes, loaders, content = own[name]
        now, dtype_now, *geometry_now, attributes_now, loaders_now, content_now = ours[name]
        assert (kind, geometry, content) == (now, geometry_now, content_now), name
        assert dtype_now in (dtype, "torch.float4_e2m1fn_x2"), name  # the very dtype that the engine views it as
        # the engine drops attributes and loaders of some tensors, with which weights are loaded again
        assert {*attributes.split(), *loaders.split()} <= {*attributes_now.split(), *loaders_now.split()}, name


@pytest.mark.parametrize("engine", KEPT, indirect=True)
def test_a_layer_that_cannot_be_replaced_is_kept_with_the_reason(engine: str) -> None:
    case, reason = KEPT[engine]
    off, kept = load(engine, (case,)), load(engine, (case,), "replace")
    assert kept["counts"]["kept"] == 1
    assert "replaced" not in kept["counts"]
    assert any(reason in line for line in kept["log"]), kept["log"]
    assert kept["states"] == off["states"]
