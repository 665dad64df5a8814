"""What engines' own code does wrong is found for their deployments, and only there."""

from typing import Any

import pytest

from preshuffle.registry import Finding, Observation, Query, Registry, observation_of

VLLM: dict[str, Any] = {"engine": "vllm@0.33.0", "env": {"VLLM_ROCM_USE_AITER": "1"}}
SGLANG: dict[str, Any] = {"engine": "sglang@0.5.23", "env": {"SGLANG_USE_AITER": "1"}}
A8W4: dict[str, Any] = {"env": {"SGLANG_USE_AITER": "1", "AITER_SITUV2_A8W4": "1"}}
MXFP4: dict[str, Any] = {
    "model": "acme/new",
    "weight_dtype": "fp4x2",
    "quant_type": "per_1x32",
    "activation": "Swiglu",
    "hidden_size": 4096,
    "intermediate_size": 1536,
    "num_experts": 128,
    "top_k": 8,
    "bias": False,
    "gate_up_order": "GGUU",
    "producer": "quark",
    "activation_dtype": "bf16",
}
MIXTRAL: dict[str, Any] = {"model": "amd/Mixtral-8x7B-Instruct-v0.1-FP8-KV", "arch": "gfx942", "cu_num": 304, "tp": 2}
OSS: dict[str, Any] = {"model": "openai/gpt-oss-120b"}
K3: dict[str, Any] = {"model": "moonshotai/Kimi-K3", "tp": 8, "aiter": "0.1.20"}
CT: dict[str, Any] = {"producer": "compressed-tensors"}


def query(*parts: dict[str, Any], **more: Any) -> Query:
    fields: dict[str, Any] = {"arch": "gfx950"}
    for part in (*parts, more):
        fields |= part
    return Query.parse(fields)


def known_bad(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {str(finding.actual): finding.severity for finding in findings if finding.code == "known_bad"}


@pytest.mark.parametrize(
    ("requested", "found"),
    [
        (query(MIXTRAL, engine="atom"), {"atom.fp8-tensor.int8": "error"}),
        (query(MIXTRAL, engine="atom", env={"ATOM_QUANT_FP8": "1"}), {"atom.fp8-tensor.int8": "error"}),
        (query(MIXTRAL, CT, engine="atom"), {"atom.ct-fp8-tensor.input-scales": "warning"}),
        (query(MIXTRAL, VLLM), {}),
        (query(MXFP4, VLLM), {"vllm.quark.w-mxfp4.rows.loader": "warning"}),
        (query(MXFP4, VLLM, gate_up_order="GUGU"), {}),
        (query(MXFP4, VLLM, engine="vllm@0.34.0"), {}),
        (query(OSS, VLLM), {}),
        (query(MXFP4, VLLM, gate_up_order="GUGU", activation_dtype="fp4x2"), {"vllm.a4w4.rows.loader": "warning"}),
        (query(MXFP4, VLLM, activation_dtype="fp4x2"), {}),
        (query(K3, SGLANG), {"sglang.situv2.a16w4.loader": "warning"}),
        (query(K3, SGLANG, A8W4), {}),
        (query(K3, VLLM), {}),
        (query(OSS, SGLANG, tp=4), {"sglang.gpt-oss.pads": "warning"}),
        (query(OSS, SGLANG, tp=8), {"sglang.gpt-oss.pads": "warning"}),
        (query(OSS, SGLANG, tp=2), {}),
        (query(OSS, engine="atom", tp=1), {}),
    ],
)
def test_resolve_and_check_find_the_same(requested: Query, found: dict[str, str]) -> None:
    registry = Registry.default()
    decision = registry.resolve(requested)
    assert known_bad(decision.findings) == found
    assert known_bad(registry.check(observation_of(decision, requested)).findings) == found


def checked(requested: Query, **applied: Any) -> dict[str, str]:
    registry = Registry.default()
    fields = observation_of(registry.resolve(requested), requested).model_dump(mode="json", exclude_unset=True)
    for name, value in applied.items():
        role = fields["applied"]["tensors"].get(name)
        if role is not None:
            role.update(value)
        elif value is None:
            fields["applied"].pop(name, None)
        else:
            fields["applied"][name] = value
    return known_bad(registry.check(Observation.parse(fields)).findings)


def test_rows_that_nobody_reports_are_taken_as_the_engine_takes_them() -> None:
    assert checked(query(MXFP4, VLLM), source_order=None) == {"vllm.quark.w-mxfp4.rows": "error"}
    assert checked(query(MXFP4, VLLM, gate_up_order="GUGU"), source_order=None) == {}
    a4w4 = query(MXFP4, VLLM, gate_up_order="GUGU", activation_dtype="fp4x2")
    assert checked(a4w4, source_order=None) == {"vllm.a4w4.rows": "error"}


def test_biases_that_vllm_drops() -> None:
    registry = Registry.default()
    for biased in (True, False):
        decision = registry.resolve(query(MXFP4, VLLM, activation_dtype="fp4x2", bias=biased))
        assert ("contract_mismatch" in {finding.code for finding in decision.findings}) is biased
    decision = registry.resolve(query(MXFP4, VLLM, gate_up_order="GUGU", bias=True))
    assert decision.call.bias
    assert not [finding for finding in decision.findings if finding.severity == "error"]


def test_a_layout_that_nobody_reports_is_the_engines() -> None:
    unknown: dict[str, Any] = {"layout": None}
    assert checked(query(K3, SGLANG), w13_weight=unknown) == {"sglang.situv2.a16w4": "error"}
    assert checked(query(K3, SGLANG, A8W4), w13_weight=unknown) == {}


@pytest.mark.parametrize(("shape", "codes"), [([1], set()), ([8], {"scale_shape"})])
def test_input_scales_of_one_number(shape: list[int], codes: set[str]) -> None:
    requested = query(MIXTRAL, VLLM)
    registry = Registry.default()
    fields = observation_of(registry.resolve(requested), requested).model_dump(mode="json", exclude_unset=True)
    fields["applied"]["tensors"]["w13_input_scale"] = {"layout": "plain", "physical_shape": shape}
    assert {finding.code for finding in registry.check(Observation.parse(fields)).findings} == codes


@pytest.mark.parametrize("value", ["0", "1"])
def test_a_switch_that_nothing_reads_is_said_to_change_nothing(value: str) -> None:
    registry = Registry.default()
    requested = query(MIXTRAL, engine="atom@0.1.6rc0", env={"ATOM_QUANT_FP8": value})
    decision = registry.resolve(requested)
    for findings in (decision.findings, registry.check(observation_of(decision, requested)).findings):
        (said,) = [finding for finding in findings if finding.code == "flag_unknown"]
        assert f"ATOM_QUANT_FP8={value} changes nothing" in said.message
