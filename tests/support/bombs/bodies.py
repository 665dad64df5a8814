"""Request bodies made to cost as much as a body can, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

LIMIT: Final = 1 << 20
QUERY: Final[dict[str, Any]] = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}
APPLIED: Final[dict[str, Any]] = {
    "gate_mode": "separated",
    "tensors": {"w13_weight": {"layout": "gui16"}, "w13_weight_scale": {"layout": "e8_gui16"}},
}
PATHS: Final = {
    "/v1/resolve": "query",
    "/v1/resolve/batch": "queries",
    "/v1/check": "observation",
    "/v1/check/batch": "observations",
    "/v1/deployments/bomb": "report",
}
_WORDS: Final = (
    "moe_ck2stages_",
    "flydsl_moe1_",
    "a",
    "é",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
)


def bodies(kind: str) -> Iterator[tuple[str, bytes]]:
    """Yield the bombs for an endpoint that takes this kind of input."""
    yield from shapeless()
    for name, query in _queries():
        if kind == "query":
            yield name, _text(query)
        elif kind == "queries":
            yield f"batch of {name}", _text({"queries": _filled(query)})
        else:
            yield f"observed {name}", _text(_wrapped(kind, {"query": query, "applied": APPLIED}))
    if kind in ("observation", "observations", "report"):
        for name, observation in _observations():
            yield name, _text(_wrapped(kind, observation))
    if kind == "report":
        yield "many layers", _text({"groups": [{"layers": ",".join(map(str, range(800))), "observation": _plain(0)}]})
        groups = [{"layers": str(index), "observation": _plain(index)} for index in range(256)]
        yield "many groups", _text({"groups": groups})
        for count in (64, 256):
            full = [
                {"layers": str(index), "observation": _full(index, min(256, LIMIT // count // 90))}
                for index in range(count)
            ]
            yield f"{count} groups of kernels", _text({"groups": full})


def shapeless() -> Iterator[tuple[str, bytes]]:
    """Yield JSON that is no input at all."""
    yield "deep lists", b"[" * (LIMIT - 1)
    yield "deep objects", b'{"a":' * (LIMIT // 5)
    yield "deep and closed", b"[" * 100_000 + b"]" * 100_000
    yield "many keys", _text({f"k{index}": 1 for index in range(90_000)})
    yield "one key often", b"{" + b",".join([b'"model":1'] * 100_000) + b"}"
    yield "a long number", b'{"tp":' + b"9" * (LIMIT - 10) + b"}"
    yield "many long numbers", b'{"tokens":[' + b",".join([b"1" * 4000] * 250) + b"]}"
    yield "a long fraction", b'{"swiglu_limit":0.' + b"3" * (LIMIT - 30) + b"}"
    yield "many exponents", b'{"tokens":[' + b",".join([b"1e99999"] * 100_000) + b"]}"
    yield "surrogates", b'{"model":"' + b"\\ud800" * 170_000 + b'"}'
    yield "NULs", b'{"model":"' + b"\\u0000" * 170_000 + b'","\\u0000":1}'
    yield "bytes of no text", b"\xff\xfe" * (LIMIT // 2)
    yield "numbers of no size", b'{"tp":NaN,"ep":Infinity,"dp":-Infinity,"hidden_size":1e400,"top_k":-0.0}'
    yield "escapes", b'{"model":"' + b"\\u0041" * 170_000 + b'"}'
    yield "many strings", _text({"model": ["x"] * 200_000})
    yield "many objects", b'{"a":[' + b",".join([b'{"a":1}'] * 110_000) + b"]}"


def _queries() -> Iterator[tuple[str, dict[str, Any]]]:
    long = "a" * 900_000
    for field in ("model", "arch", "producer", "engine", "aiter", "rocm", "deployment", "all_to_all", "activation",
                  "weight_dtype", "aiter_features", "quant_type", "tp", "tokens"):  # fmt: skip
        yield f"long {field}", {**QUERY, field: long}
    for word in _WORDS:
        yield f"model of {word}", {**QUERY, "model": (word * 512)[:512]}
        yield f"deployment of {word}", {**QUERY, "deployment": (word * 256)[:256]}
    yield "long version", {**QUERY, "aiter": "1." * 60 + "0"}
    yield "digits of a version", {**QUERY, "engine": "vllm@" + "9" * 900_000}
    yield "many switches", {**QUERY, "env": {f"VLLM_ROCM_USE_AITER_{index}": "1" for index in range(25_000)}}
    yield "512 switches", {**QUERY, "env": {f"VLLM_ROCM_USE_AITER_{index}": "1" for index in range(512)}}
    yield "long switches", {**QUERY, "env": {f"AITER_{index}": "x" * 8000 for index in range(120)}}
    yield (
        "switches of hints",
        {**QUERY, "engine": "vllm", "env": {f"VLLM_ROCM_USE_AITER_MOEE{index}": "x" for index in range(512)}},
    )
    yield "many features", {**QUERY, "aiter_features": {f"feature{index}": True for index in range(25_000)}}
    yield "256 features", {**QUERY, "aiter_features": {f"gate_mode{index}": True for index in range(256)}}
    yield "256 tokens", {**QUERY, "tokens": list(range(1, 65_000, 254))[:256]}
    yield "many tokens", {**QUERY, "tokens": list(range(1, 100_000))}
    yield "the same token", {**QUERY, "tokens": [1] * 256}
    yield "many wrong tokens", {**QUERY, "tokens": ["x"] * 200_000}
    yield "largest sizes", {
        "model": "x", "arch": "gfx950", "weight_dtype": "fp4x2", "quant_type": "per_1x32", "activation": "Silu",
        "activation_dtype": "fp4x2", "hidden_size": 2**20, "intermediate_size": 2**20, "num_experts": 2**20,
        "top_k": 2**20, "tp": 4096, "ep": 4096, "dp": 4096, "tokens": [2**31],
    }  # fmt: skip
    yield "odd sizes", {**QUERY, "hidden_size": 1_048_573, "intermediate_size": 999_983, "num_experts": 1_000_003}


def _observations() -> Iterator[tuple[str, dict[str, Any]]]:
    for word in _WORDS:
        for length in (512, 2_000, 5_000, 900_000):
            name = (word * length)[:length]
            yield f"kernel of {length} {word}", _observed(kernels=[{"tokens": 1, "stage1": name, "stage2": name}])
    for count in (256, 15_000):
        yield f"{count} kernels", _full(0, count)
        names = [
            {"tokens": index + 1, "stage1": f"moe_ck2stages_gemm1_{index}" + "_b16" * 100} for index in range(count)
        ]
        yield f"{count} unknown kernels", _observed(kernels=names[: 900_000 // 450])
        yield f"{count} backends", _observed(kernels=[{"backend": f"triton{index}"} for index in range(count)])
        yield f"{count} events", _observed(events=["apply", "reload", "rewrap", "wake"] * (count // 4))
    many = list(range(150_000))
    for field in ("dummy_slots", "mask_ones", "local_experts"):
        yield f"many {field}", _observed(**{field: many})
        yield f"4096 {field}", _observed(**{field: many[:4096]})
    for field in ("rows_loaded", "slots_loaded"):
        for count in (4096, 16_384, 150_000):
            yield f"{count} {field}", _observed(tensors={"w13_weight": {"layout": "gui16", field: many[:count]}})
    yield "many tensors", _observed(tensors={f"w{index}": {} for index in range(60_000)})
    yield "many wrong tensors", _observed(tensors={f"w{index}": {"layout": 1, "dtype": "x"} for index in range(25_000)})
    yield "long layout", _observed(tensors={"w13_weight": {"layout": "a" * 900_000}})
    yield "long dtype", _observed(tensors={"w13_weight": {"dtype": "a" * 900_000}})
    yield "huge shapes", _observed(
        tensors={"w13_weight": {"logical_shape": [2**62] * 4, "physical_shape": [2**62] * 4}},
        hidden_pad=2**62, intermediate_pad=2**62, mask_size=2**62, local_experts=2**62, mask_ones=2**62,
    )  # fmt: skip


def _observed(**applied: Any) -> dict[str, Any]:
    return {"query": QUERY, "applied": {**APPLIED, **applied}}


def _full(index: int, count: int) -> dict[str, Any]:
    kernels = [
        {"tokens": number + 1, "stage1": f"flydsl_moe1_afp4_wfp4_bf16_t32x128x{number + index}"}
        for number in range(count)
    ]
    return {"query": {**QUERY, "hidden_size": 2880 + index}, "applied": {**APPLIED, "kernels": kernels}}


def _plain(index: int) -> dict[str, Any]:
    return {"query": {**QUERY, "hidden_size": 1024 + 32 * index}, "applied": APPLIED}


def _wrapped(kind: str, observation: dict[str, Any]) -> Any:
    if kind == "observation":
        return observation
    if kind == "observations":
        return {"observations": _filled(observation, "query")}
    return {"groups": [{"layers": "0", "observation": observation}]}


def _filled(value: dict[str, Any], query: str | None = None) -> list[Any]:
    """Return as many different copies of an input as a batch or a body takes."""
    count = max(1, min(1000, LIMIT * 9 // 10 // (len(_text(value)) + 30)))
    sizes = [{"hidden_size": 1024 + 32 * index} for index in range(count)]
    if query is None:
        return [{**value, **size} for size in sizes]
    return [{**value, query: {**value[query], **size}} for size in sizes]


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()[: LIMIT + 1]
