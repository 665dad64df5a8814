"""config.json files made to cost as much as one can, and real ones with one value of a wrong kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from support.book.configurations import DEEPSEEK, INT4, PUBLISHED, QUARK_MXFP4

LIMIT: Final = 1 << 20
EXPERT: Final = "model.layers.{}.mlp.experts.{}.up_proj"
LISTS: Final = {"quark": ("exclude", QUARK_MXFP4), "compressed-tensors": ("ignore", INT4)}
MAPPINGS: Final = {
    "quark": ("layer_quant_config", QUARK_MXFP4),
    "compressed-tensors": ("config_groups", INT4),
    "gptq": ("dynamic", {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}),
}


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


def texts() -> Iterator[tuple[str, bytes]]:
    """Yield files by name: no configuration at all, or a real one with something large in it."""
    yield "deep lists", b"[" * (LIMIT - 1)
    yield "deep objects", b'{"a":' * (LIMIT // 5)
    for depth in (100, 900, 990, 5_000, 200_000):
        yield f"{depth} lists", _with(f'"more":{nested(depth)}')
        yield f"{depth} objects", _with(f'"more":{nested(depth, chr(123) + chr(34) + "a" + chr(34) + ":", "}")}')
        yield f"{depth} lists as a size", _with(f'"hidden_size":{nested(depth)}')
        section = f'{{"quant_method":"quark","global_quant_config":{nested(depth, chr(123) + chr(34) + "a" + chr(34) + ":", "}")}}}'
        yield f"{depth} objects of quantization", _with(f'"quantization_config":{section}')
    yield "a key twice", _with('"hidden_size":1,"hidden_size":2')
    yield "one key often", b"{" + b",".join([b'"model_type":1'] * 60_000) + b"}"
    yield "many keys", _filled({"model_type": "x"}, ((f"k{index}", 1) for index in range(80_000)))
    yield "many counts of experts", _filled({"model_type": "x"}, ((f"num_experts_{i}", 8) for i in range(40_000)))
    for text in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e99999", "9" * 4_000, "9" * 900_000, "0." + "3" * 900_000,
                 "-1", "1.0", "1e3", "1e308", "9223372036854775808", '"' + "9" * 5_000 + '"', '"\\ud800"', '"\\u0000"', '"' + "x" * 900_000 + '"'):
        for field in ("hidden_size", "num_hidden_layers", "n_routed_experts", "first_k_dense_replace", "moe_layer_freq", "swiglu_limit", "hidden_act", "model_type", "_name_or_path", "torch_dtype"):
            yield f"{field} {text[:20]}", _with(f'"{field}":{text}')
    for count in (100, 1_000, 100_000, 10**6, 10**9, 2**62):
        yield f"{count} layers", _with(f'"num_hidden_layers":{count}')
        yield f"{count} layers of many modules", _text({**_excluding("quark", 10_000), "num_hidden_layers": count})
    for method in LISTS:
        name, section = LISTS[method]
        for kind, items in _items().items():
            yield f"{method} {kind}", _listing(method, items)
            yield f"{method} {kind}, 512 layers", _listing(method, items, num_hidden_layers=512)
        yield f"{method} an item of 900 KB", _text({**DEEPSEEK, "quantization_config": {**section, name: ["a" * 900_000]}})
        yield f"{method} a glob of 900 KB", _text({**DEEPSEEK, "quantization_config": {**section, name: ["*a" * 450_000]}})
        yield f"{method} a pattern of 900 KB", _text({**DEEPSEEK, "quantization_config": {**section, name: ["re:" + "(a|" * 300_000]}})
    for method, (name, section) in MAPPINGS.items():
        for kind, items in _items().items():
            values = _spec(method)
            rest = {**DEEPSEEK, "quantization_config": {**section, name: {}}}
            room = (LIMIT - len(_text(rest)) - 10) // (len(json.dumps(values)) + max(map(len, map(json.dumps, items[:100]))) + 4)
            mapping = {_key(method, item): values for item in items[:room]}
            for layers in (61, 512):
                yield f"{method} {name} of {kind}, {layers} layers", _text({**rest, "num_hidden_layers": layers, "quantization_config": {**section, name: mapping}})
    targets = [f"re:.*{index}.*" for index in range(60_000)]
    group = {**INT4["config_groups"]["group_0"], "targets": targets}
    yield "many targets", _text({**DEEPSEEK, "quantization_config": {**INT4, "config_groups": {"group_0": group}}})
    for field in ("layer_types", "mlp_layer_types", "moe_layer_freq", "mlp_only_layers", "moe_layers", "decoder_sparse_step"):
        for model in ("deepseek-r1", *list(PUBLISHED)[5::4]):
            for value in ([1] * 200_000, list(range(120_000)), ["x"] * 100_000, [[]] * 100_000, "1," * 100_000 + "1", "9" * 5000, "²", "٣,٤", "a" * 500_000, [float("nan")] * 50_000):
                yield f"{model} {field} {str(value)[:12]}", _text({**PUBLISHED[model][0], field: value})
    yield "values of layers that all differ", _text({**DEEPSEEK, "num_hidden_layers": 512, "n_routed_experts": list(range(1, 513))})
    yield "unread keys", _text({**DEEPSEEK, "quantization_config": {**QUARK_MXFP4, **{f"pack_bits_{i}": "fp8" * 5 for i in range(18_000)}}})
    yield "unread keys of groups", _text({**DEEPSEEK, "quantization_config": {**INT4, "config_groups": {f"g{i}": {"targets": ["Linear"], f"bits{i}": i} for i in range(15_000)}}})
    yield "keys beside the section", _text({**DEEPSEEK, **{f"expert_{i}_dtype": "fp4" for i in range(25_000)}})
    yield "a long method", _text({**DEEPSEEK, "quantization_config": {"quant_method": "x" * 900_000}})
    yield "a method of lists", _text({**DEEPSEEK, "quantization_config": {"quant_method": [[1] * 100] * 2_000}})
    yield "not UTF-8", b'{"model_type":"\xff\xfe"}'
    yield "UTF-16", json.dumps(DEEPSEEK).encode("utf-16")
    yield "a byte order mark", b"\xef\xbb\xbf" + json.dumps(DEEPSEEK).encode()
    yield "empty", b""
    yield "NULs", b"\0" * LIMIT
    yield "spaces", b" " * LIMIT


def _items() -> dict[str, list[str]]:
    """Return long lists of names and patterns of modules."""
    words = {
        "names": [EXPERT.format(index // 256, index % 256) for index in range(24_000)],
        "short names": [f"m{index}" for index in range(110_000)],
        "parts": ["mlp.experts"] * 60_000,
        "globs": [f"model.layers.*.mlp.experts.*.x{index}*y" for index in range(20_000)],
        "stars": ["*a" * 40 + f"*{index}" for index in range(10_000)],
        "brackets": [f"[!a-z]*[m]odel*{index}" for index in range(30_000)],
        "marks": ["?" * 30 + f"*{index}" for index in range(20_000)],
        "patterns": [f"re:.*layers.{index}.mlp.*" for index in range(30_000)],
        "hard patterns": [f"re:(a+)+b{index}|([a-z.0-9]+)*x" for index in range(20_000)],
        "wide patterns": [f"re:(x{index}{{1,50}}){{1,10}}" for index in range(20_000)],
        "invalid patterns": [f"re:({index}" for index in range(60_000)],
        "look-around": [f"re:(?!{index})a" for index in range(40_000)],
    }
    return words


def _listing(method: str, items: list[str], **more: Any) -> bytes:
    name, section = LISTS[method]
    rest = {**DEEPSEEK, **more, "quantization_config": {**section, name: []}}
    room, taken = LIMIT - len(_text(rest)) - 10, []
    for item in items:
        room -= len(item.replace("\\", "\\\\")) + 3
        if room < 0:
            break
        taken.append(item)
    return _text({**rest, "quantization_config": {**section, name: taken}})


def _excluding(method: str, count: int) -> dict[str, Any]:
    name, section = LISTS[method]
    items = [EXPERT.format(index // 256, index % 256) for index in range(count)]
    return {**DEEPSEEK, "quantization_config": {**section, name: items}}


def _spec(method: str) -> dict[str, Any]:
    if method == "quark":
        return {"weight": {"dtype": "fp4"}}
    return {"targets": ["re:.*x"]} if method == "compressed-tensors" else {"bits": 8}


def _key(method: str, item: str) -> str:
    return f"-:{item.removeprefix('re:')}" if method == "gptq" else item


def _with(member: str) -> bytes:
    """Return a real configuration with one more member, before the others that it replaces."""
    name = member.partition(":")[0].strip('"')
    rest = {key: value for key, value in DEEPSEEK.items() if key != name}
    return f"{{{member},{json.dumps(rest)[1:]}".encode()[: LIMIT + 1]


def _filled(config: dict[str, Any], members: Iterator[tuple[str, Any]]) -> bytes:
    return _text({**config, **dict(members)})


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


WRONG: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 3, 1.5, float("nan"), float("inf"), 10**30, 2**63, -(2**63), "", "x", "0", "-1", "1,2,x", "٣", "²",
    "9" * 5_000, "\ud800", "\0", [], [None], [[]], [{}], {}, {"a": 1}, {"": {"": []}}, [1, "x", None, {}], [0.5], ["x"] * 3,
    [True], {"0": 0}, [[1, 2], [3]], "re:(", "[", ["re:(", "[", "re:(?=a)", "", "*", "?", "-:"],
)  # fmt: skip


def mutants(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield configurations in which one value at any level is of another kind, with the value's path."""
    for path in _paths(config):
        for wrong in WRONG:
            changed = deepcopy(config)
            place = changed
            for part in path[:-1]:
                place = place[part]
            place[path[-1]] = wrong
            yield f"{'.'.join(map(str, path))} = {str(wrong)[:20]!r}", changed


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (*above, name)
        yield from _paths(item, (*above, name))
