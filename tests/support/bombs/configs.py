"""config.json files made to cost as much as one can, and real ones with one value of a wrong kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, Final

from support.book.configurations import DEEPSEEK, INT4, PUBLISHED, QUARK_MXFP4

LIMIT: Final = 1 << 20
EXPERT: Final = "model.layers.{}.mlp.experts.{}.up_proj"
GPTQ: Final[dict[str, Any]] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
LISTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (("exclude", QUARK_MXFP4), ("ignore", INT4))
MAPPINGS: Final[tuple[tuple[str, dict[str, Any], str, dict[str, Any]], ...]] = (
    ("layer_quant_config", QUARK_MXFP4, "", {"weight": {"dtype": "fp4"}}),
    ("config_groups", INT4, "", {"targets": ["re:.*x"]}),
    ("dynamic", GPTQ, "-:", {"bits": 8}),
)
NUMBERS: Final = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e99999", "9" * 4_000, "9" * 900_000, "0." + "3" * 900_000,
    "-1", "1.0", "1e3", "1e308", "9223372036854775808", '"' + "9" * 5_000 + '"', '"\\ud800"', '"\\u0000"',
    f'"{"x" * 900_000}"',
)  # fmt: skip
FIELDS: Final = (
    "hidden_size", "num_hidden_layers", "n_routed_experts", "first_k_dense_replace", "moe_layer_freq", "swiglu_limit",
    "hidden_act", "model_type", "_name_or_path", "torch_dtype",
)  # fmt: skip
LAYER_FIELDS: Final = (
    "layer_types", "mlp_layer_types", "moe_layer_freq", "mlp_only_layers", "moe_layers", "decoder_sparse_step",
)  # fmt: skip
LAYER_VALUES: Final[tuple[Any, ...]] = (
    [1] * 200_000, list(range(120_000)), ["x"] * 100_000, [[]] * 100_000, "1," * 100_000 + "1", "9" * 5000, "²", "٣,٤",
    "a" * 500_000, [float("nan")] * 50_000,
)  # fmt: skip


Made = tuple[str, Callable[[], bytes]]
"""A file's name, and a function that makes its text: most of them take longer to make than to read."""


def texts() -> Iterator[Made]:
    """Yield files by name: no configuration at all, or a real one with something large in it."""
    yield from _no_configurations()
    for depth in (31, 100, 900, 990, 5_000, 200_000):
        lists, objects = nested(depth, "[", "]"), nested(depth, '{"a":', "}")
        yield f"{depth} lists", partial(_with, "more", lists)
        yield f"{depth} objects", partial(_with, "more", objects)
        yield f"{depth} lists as a size", partial(_with, "hidden_size", lists)
        section = f'{{"quant_method":"quark","global_quant_config":{objects}}}'
        yield f"{depth} objects of quantization", partial(_with, "quantization_config", section)
    for text in NUMBERS:
        for field in FIELDS:
            yield f"{field} {text[:20]}", partial(_with, field, text)
    modules = [EXPERT.format(index // 256, index % 256) for index in range(10_000)]
    for count in (100, 1_000, 100_000, 10**6, 10**9, 2**62):
        yield f"{count} layers", partial(_with, "num_hidden_layers", str(count))
        quantization = {**QUARK_MXFP4, "exclude": modules}
        config = {**DEEPSEEK, "num_hidden_layers": count, "quantization_config": quantization}
        yield f"{count} layers of many modules", partial(_text, config)
    yield from _lists_of_modules()
    yield from _layer_lists()
    yield from _keys()


def nested(depth: int, opening: str, closing: str) -> str:
    """Return JSON of some depth."""
    return opening * depth + "1" + closing * depth


def _no_configurations() -> Iterator[Made]:
    yield "deep lists", lambda: b"[" * (LIMIT - 1)
    yield "deep objects", lambda: b'{"a":' * (LIMIT // 5)
    yield "a key twice", partial(_with, "hidden_size", '1,"hidden_size":2')
    yield "one key often", lambda: b"{" + b",".join([b'"model_type":1'] * 60_000) + b"}"
    yield "not UTF-8", lambda: b'{"model_type":"\xff\xfe"}'
    yield "UTF-16", lambda: json.dumps(DEEPSEEK).encode("utf-16")
    yield "a byte order mark", lambda: b"\xef\xbb\xbf" + json.dumps(DEEPSEEK).encode()
    yield "empty", lambda: b""
    yield "NULs", lambda: b"\0" * LIMIT
    yield "spaces", lambda: b" " * LIMIT


def _lists_of_modules() -> Iterator[Made]:
    for name, section in LISTS:
        for kind, items in _items().items():
            for layers in (61, 512):
                yield f"{name} of {kind}, {layers} layers", partial(_quantized, section, name, items, layers)
        for kind, item in (("item", "a"), ("glob", "*a"), ("mark", "?"), ("expression", "re:" + "(a|" * 9)):
            yield f"{name}: a long {kind}", partial(_quantized, section, name, [item * (900_000 // len(item))], 61)
    for name, section, prefix, settings in MAPPINGS:
        for kind, items in _items().items():
            keys = [f"{prefix}{item.removeprefix('re:')}" if prefix else item for item in items]
            for layers in (61, 512):
                yield f"{name} of {kind}, {layers} layers", partial(_quantized, section, name, keys, layers, settings)
    group = {"targets": [f"re:.*{index}.*" for index in range(60_000)], "weights": {"num_bits": 4}}
    yield (
        "many targets",
        partial(_text, {**DEEPSEEK, "quantization_config": {**INT4, "config_groups": {"group_0": group}}}),
    )


def _items() -> dict[str, list[str]]:
    """Return long lists of names and patterns of modules."""
    return {
        "names": [EXPERT.format(index // 256, index % 256) for index in range(24_000)],
        "short names": [f"m{index}" for index in range(110_000)],
        "parts": [f"mlp.experts{' ' * (index % 3)}" for index in range(60_000)],
        "globs": [f"model.layers.*.mlp.experts.*.x{index}*y" for index in range(20_000)],
        "stars": ["*a" * 40 + f"*{index}" for index in range(10_000)],
        "brackets": [f"[!a-z]*[m]odel*{index}" for index in range(30_000)],
        "marks": ["?" * 30 + f"*{index}" for index in range(20_000)],
        "patterns": [f"re:.*layers.{index}.mlp.*" for index in range(30_000)],
        "hard patterns": [f"re:(a+)+b{index}|([a-z.0-9]+)*x" for index in range(20_000)],
        "wide patterns": [f"re:(.{{1,50}}){{1,10}}z{index}" for index in range(20_000)],
        "invalid patterns": [f"re:({index}" for index in range(60_000)],
        "long invalid patterns": [f"re:{'(a|' * 600}{index}" for index in range(500)],
        "look-around": [f"re:(?!{index})a" for index in range(40_000)],
    }


def _quantized(section: dict[str, Any], key: str, items: list[str], layers: int, settings: Any = None) -> bytes:
    """Return a configuration with as many modules as fit, in a list, or in a mapping where they have settings."""
    config = {**DEEPSEEK, "num_hidden_layers": layers}
    each = 4 + (len(_text(settings)) if settings is not None else 0)
    room, taken = LIMIT - len(_text({**config, "quantization_config": section})), []
    for item in items:
        room -= len(_text(item)) + each
        if room < 0:
            break
        taken.append(item)
    modules = taken if settings is None else dict.fromkeys(taken, settings)
    return _text({**config, "quantization_config": {**section, key: modules}})


def _layer_lists() -> Iterator[Made]:
    labelled = [(str(value)[:12], value) for value in LAYER_VALUES]
    for field in LAYER_FIELDS:
        for model in ("deepseek-r1", *list(PUBLISHED)[5::4]):
            for label, value in labelled:
                yield f"{model} {field} {label}", partial(_text, {**PUBLISHED[model][0], field: value})
    differing = {"num_hidden_layers": 512, "n_routed_experts": list(range(1, 513))}
    yield "values of layers that all differ", partial(_text, {**DEEPSEEK, **differing})


def _keys() -> Iterator[Made]:
    yield "many keys", partial(_text, {"model_type": "x", **{f"k{index}": 1 for index in range(80_000)}})
    yield (
        "many counts of experts",
        partial(_text, {"model_type": "x", **{f"num_experts_{i}": 8 for i in range(40_000)}}),
    )
    unread = {f"pack_bits_{index}": "fp8" * 5 for index in range(18_000)}
    yield "unread keys", partial(_text, {**DEEPSEEK, "quantization_config": {**QUARK_MXFP4, **unread}})
    groups = {f"g{index}": {"targets": ["Linear"], f"bits{index}": index} for index in range(15_000)}
    yield (
        "unread keys of groups",
        partial(_text, {**DEEPSEEK, "quantization_config": {**INT4, "config_groups": groups}}),
    )
    yield (
        "keys beside the section",
        partial(_text, {**DEEPSEEK, **{f"expert_{index}_dtype": "fp4" for index in range(25_000)}}),
    )
    for method in ("x" * 900_000, [[1] * 100] * 2_000, {"a": ["x"] * 100_000}):
        yield f"method {str(method)[:9]}", partial(_text, {**DEEPSEEK, "quantization_config": {"quant_method": method}})


def _with(name: str, value: str) -> bytes:
    """Return a real configuration with one member in JSON."""
    rest = {key: item for key, item in DEEPSEEK.items() if key != name}
    return f'{{"{name}":{value},{json.dumps(rest)[1:]}'.encode()[: LIMIT + 1]


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


WRONG: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 3, 1.5, float("nan"), float("inf"), 10**30, 2**63, -(2**63), "", "x", "0", "-1",
    "1,2,x", "٣", "²", "9" * 5_000, "\ud800", "\0", [], [None], [[]], [{}], {}, {"a": 1}, {"": {"": []}},
    [1, "x", None, {}], [0.5], ["x"] * 3, [True], {"0": 0}, [[1, 2], [3]],
    "re:(", "[", ["re:(", "[", "re:(?=a)", "", "*", "?", "-:", "re:\ud800"],
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
