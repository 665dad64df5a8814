"""Deployments for which a contract or a known problem of the book holds, built from its own conditions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

from preshuffle.registry import NoRecipeError, Observation, Query, QueryError, Registry, Report, observation_of
from preshuffle.registry.base.versions import version_key

Raw = dict[str, Any]

MODELS: Final = (
    "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V4-Pro", "moonshotai/Kimi-K3", "amd/DeepSeek-R1-0528-MXFP4-v2",
    "deepseek-ai/DeepSeek-R1-0528", "Qwen/Qwen3-30B-A3B", "MiniMaxAI/MiniMax-M3-MXFP8", "amd/MiniMax-M3-MXFP4",
    "amd/Mixtral-8x7B-Instruct-v0.1-FP8-KV", "meta-llama/Llama-4-Scout-17B-16E-Instruct",
)  # fmt: skip
ENGINE_ON: Final = {"vllm": {"VLLM_ROCM_USE_AITER": "1"}, "sglang": {"SGLANG_USE_AITER": "1"}}
SCALES: Final = {"sep16": "e8", "gui16": "e8_gui16", "gurow16": "n32k4_gurow"}
GATE_MODES: Final = {"sep16": "separated", "gui16": "interleave"}
_AITERS: Final = ("0.1.8", "0.1.13", "0.1.14", "0.1.15", "0.1.16", "0.1.17", "0.1.18", "0.1.19", "0.1.20")
_APPLIED: Final = frozenset({"eplb", "graphs", "lora", "bias_passed", "expert_map", "function", "swiglu_limit"})


def first(value: Any) -> Any:
    """Return a condition's only or first value."""
    return value[0] if isinstance(value, list | tuple) else value


def _version(condition: str, known: tuple[str, ...]) -> str | None:
    """Return a version that a condition takes: its lower end, else the newest below its upper one."""
    if match := re.match(r">=([^,]+)", condition):
        return match[1]
    if match := re.match(r"<=?([^,]+)", condition):
        below = [version for version in known if version_key(version) < version_key(match[1])]
        return below[-1] if below else None
    return condition


def switches_of(when: Mapping[str, Any]) -> dict[str, str]:
    """Return the switches that an entry's conditions name, as it wants them."""
    return {name[4:]: str(first(value)) for name, value in when.items() if name.startswith("env.")}


def _queries(registry: Registry, when: Mapping[str, Any]) -> Iterator[Raw]:
    archs = [first(when["arch"])] if "arch" in when else ["gfx950", "gfx942", "gfx1250"]
    for model, arch, tp in product(MODELS, archs, (8, 1, 4)):
        raw: Raw = {"model": model, "arch": arch, "tp": tp, "env": {}}
        if engine := first(when.get("engine")):
            entry = registry.book.engines[engine]
            since = _version(when.get("engine_version", entry.newest), ("0.20.0", "0.22.1", "0.23.0"))
            raw |= {"engine": f"{engine}@{since}", "env": dict(ENGINE_ON.get(engine, {}))}
        if "aiter" in when:
            raw["aiter"] = _version(when["aiter"], _AITERS)
        for env in ({}, switches_of(when)):
            yield {**raw, "env": {**raw["env"], **env}}


def _change(applied: Raw, when: Mapping[str, Any]) -> None:
    """Make a deployment what an entry's conditions want, where the decision is not."""
    tensors = applied["tensors"]
    for name, wanted in when.items():
        value = first(wanted)
        if name == "w13_layout":
            tensors["w13_weight"]["layout"] = value
            if tensors.get("w13_weight_scale", {}).get("dtype") == "e8m0":
                tensors["w13_weight_scale"]["layout"] = SCALES.get(value, "plain")
            if value in GATE_MODES:
                applied["gate_mode"] = GATE_MODES[value]
        elif name == "gate_mode" and "w13_layout" not in when:
            applied["gate_mode"] = value
        elif name == "is_shuffled":
            for role in ("w13_weight", "w2_weight"):
                tensors[role]["is_shuffled"] = value
        elif name == "backend":
            applied["kernels"] = [{"backend": value}]
        elif name in _APPLIED:
            applied[name] = value


def provoke(registry: Registry, when: Mapping[str, Any], says: str) -> tuple[Raw, Raw, Report] | None:
    """Return a query, the observation and its report with a finding that begins with a text; None if none is found."""
    for raw in _queries(registry, when):
        try:
            query = Query.parse(raw)
            decision = registry.resolve(query, nearest=False)
            observation = observation_of(decision, query).model_dump(mode="json", exclude_unset=True)
        except (NoRecipeError, QueryError):
            continue
        observation["query"]["env"] = {**observation["query"].get("env", {}), **switches_of(when)}
        _change(observation["applied"], when)
        try:
            report = registry.check(Observation.parse(observation))
        except (ValueError, QueryError):
            continue
        if any(finding.message.startswith(says) for finding in report.findings):
            return {**raw, "env": {**raw["env"], **switches_of(when)}}, observation, report
    return None
