"""A small checkpoint and query fields for each recipe of the book.

``python -m support.book.recipe_checkpoints`` looks for them and writes ``tests/tables/recipe_checkpoints.yaml``: from
each case of the engines' tables, over bases of every storage, small sizes first, tensor and expert parallelism at once
where the recipe allows it.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import yaml

from preshuffle.layouts import write_checkpoint
from preshuffle.layouts.laid_out import lay_out_checkpoint
from preshuffle.registry import PreshuffleError, Query, Registry
from preshuffle.registry.hf import checkpoint_tensors, language_model, model_type_of
from support.book.configurations import PUBLISHED
from support.book.engine_table import TABLES, Case, read_table
from support.book.quantizations import CASES as SECTIONS
from support.source.yaml_files import read_yaml
from support.tensors.laid_out import DEEPSEEK, GPT_OSS, LLAMA4, QWEN

TABLE: Final = TABLES / "recipe_checkpoints.yaml"
NAMES: Final = ("book_recommendation", "book_vllm", "book_sglang", "book_atom")
RANKS: Final = ((2, 2), (2, 1), (1, 2), (1, 1))
SIZES: Final = ((256, 256), (512, 512), (192, 384), (256, 192), (512, 160), (256, 96))
"""Hidden size, and intermediate size of a rank."""
EXPERTS: Final = 4
Weights = dict[tuple[str, str | None], tuple[str | None, str | None]]
ALLOW: Final = ("unsupported", "untuned")
"""Findings of the kernels, which are no matter of bytes."""
FAULTS: Final = ("contract_mismatch", "known_bad")
"""Findings of an engine that runs a recipe's bytes wrongly: rows name them as ``allow``, and are refused without."""
REFUSALS: Final = ("quantizes them while it loads them", "no step that multiplies")
"""Why a recipe is not laid out ahead, in the words of the messages."""
_SCALED: Final = ("weight_dtype", "quant_type")
ONE_LAYER: Final = {
    "num_hidden_layers": 1,
    "first_k_dense_replace": 0,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "interleave_moe_layer_step": 1,
    "moe_layer_freq": 1,
}
GIVEN: Final = ("arch", "engine", "activation_dtype", "env", "aiter", "aiter_features")
OVERRIDABLE: Final = ("activation", "gate_up_order", "swiglu_limit", "producer", "activation_scales")
"""Fields of a case that no small configuration says."""
_BASES: Final = {"qwen": QWEN, "deepseek": DEEPSEEK, "llama4": LLAMA4, "gpt-oss": {**GPT_OSS, "num_hidden_layers": 1}}
_SECTIONS: Final = {name: section for name, section, _ in SECTIONS}


def config_of(base: str, section: str | None, sizes: tuple[int, int], registry: Registry) -> dict[str, Any]:
    """Return a configuration of one small layer.

    Args:
        base: name of a base, or of a published configuration.
        section: name of a quantization section; ``fp16`` for unquantized float16; the base's own if None.
        sizes: hidden and intermediate size.
        registry: whose book says how the model type names its sizes.
    """
    config: dict[str, Any] = copy.deepcopy(dict(_BASES[base] if base in _BASES else PUBLISHED[base][0]))
    if section == "fp16":
        config["torch_dtype"] = "float16"
    elif section is not None and _SECTIONS[section]:
        config["quantization_config"] = _SECTIONS[section]
    entry = model_type_of(config, registry.book)
    values = {"hidden_size": sizes[0], "intermediate_size": sizes[1], "num_experts": EXPERTS, "top_k": 2}
    names = {name: value for fact, value in values.items() for name in entry.fields.get(fact, ())}
    _put(config, {**ONE_LAYER, **names})
    return config


def _put(config: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Change the values of names that a configuration, or the language model's part of it, has."""
    for name, value in config.items():
        if name in values:
            config[name] = values[name]
        elif isinstance(value, dict) and name != "quantization_config":
            _put(value, values)


@lru_cache(maxsize=4096)
def _cached_config(base: str, section: str | None, sizes: tuple[int, int], registry: Registry) -> dict[str, Any]:
    return config_of(base, section, sizes, registry)


def read_recipe_checkpoints() -> dict[str, dict[str, Any]]:
    """Read what was found, by recipe.

    ``refused`` says why a recipe's checkpoint is not laid out ahead, as the message does.
    """
    found: dict[str, dict[str, Any]] = read_yaml(TABLE)
    return found


def _stores(registry: Registry) -> Iterator[tuple[str, str | None]]:
    yield from ((base, section) for section in _SECTIONS for base in ("qwen", "deepseek", "llama4"))
    yield from (("gpt-oss", None), ("qwen", "fp16"), ("llama4", "fp16"))
    yield from ((name, None) for name in PUBLISHED)


def _candidates(recipe: str, cases: list[Case], registry: Registry, weights: Weights) -> Iterator[dict[str, Any]]:
    """Yield what resolves to a recipe, one row of each store."""
    failed: set[tuple[str, str | None]] = set()
    overridden = ((), OVERRIDABLE, (*OVERRIDABLE, "model"), (*OVERRIDABLE, *_SCALED))
    for extra, case in product(overridden, cases[:3]):
        stated = Query.parse(case.query)
        given: dict[str, Any] = {name: case.query[name] for name in GIVEN if name in case.query}
        given |= {name: getattr(stated, name) for name in extra if getattr(stated, name) is not None}
        wanted = (stated.weight_dtype, stated.quant_type)
        for store, weight in weights.items():
            if weight != wanted and stated.weight_dtype is not None and extra[-2:] != _SCALED:
                continue
            if store in failed:
                continue
            for sizes, (tp, ep) in product(SIZES, (*RANKS, (stated.tp, 1))):
                row: dict[str, Any] = {"base": store[0], "section": store[1], "sizes": [sizes[0], sizes[1] * tp]}
                fields: dict[str, Any] = {**given, "tp": tp, "ep": ep}
                try:
                    config = _cached_config(*store, (sizes[0], sizes[1] * tp), registry)
                    query = registry.query_from_hf_config(config, layer=0, **fields)
                    decision = registry.resolve(query, kernels=False, nearest=False)
                    registry.loader_cut(query)  # refuses tp beside ep where ranks hold whole experts
                except PreshuffleError:
                    continue
                if decision.recipe == recipe:
                    yield {**row, "fields": fields}
                    failed.add(store)  # of what a store does not hold, no other size helps
                    break


def _weights(registry: Registry) -> Weights:
    """Return the weight dtype and quantization of each store that the book reads."""
    found: Weights = {}
    for store in _stores(registry):
        try:
            config = config_of(*store, (256, 256), registry)
            query = registry.query_from_hf_config(config, layer=0, arch="gfx950")
            entry = model_type_of(config, registry.book)
            if not checkpoint_tensors(language_model(config, entry), entry, registry.book, 0):
                continue  # how it is stored is not in the book
        except PreshuffleError:
            continue
        found[store] = query.weight_dtype, query.quant_type
    return found


def _with_result(row: dict[str, Any], registry: Registry) -> dict[str, Any] | None:
    """Return a row with what must be allowed, or why it is refused; None where its checkpoint does not fit."""
    config = config_of(row["base"], row["section"], tuple(row["sizes"]), registry)
    for allow in ((), FAULTS):
        with tempfile.TemporaryDirectory() as folder:
            try:
                write_checkpoint(Path(folder, "checkpoint"), config)
                checkpoint, out = Path(folder, "checkpoint"), Path(folder, "out")
                lay_out_checkpoint(checkpoint, out, allow=(*ALLOW, *allow), **row["fields"])
            except PreshuffleError as error:
                print("   ", row["base"], row["section"], str(error)[:150], file=sys.stderr)
                reason = next((text for text in REFUSALS if text in str(error)), None)
                if reason is not None:
                    return {**row, "refused": reason}
                continue
            return {**row, "allow": list(allow)} if allow else row
    return None


def _first(candidates: Iterator[dict[str, Any]], registry: Registry) -> dict[str, Any] | None:
    """Return the first candidate that is laid out; the first that is refused where none of some is."""
    refused = None
    for candidate in islice(candidates, 12):
        row = _with_result(candidate, registry)
        if row is not None and "refused" not in row:
            return row
        refused = refused or row
    return refused


def main() -> None:
    """Look for a checkpoint of each recipe."""
    registry = Registry.default()
    cases: dict[str, list[Case]] = {}
    for name in NAMES:
        for case in read_table(name):
            if case.recipe:
                cases.setdefault(case.recipe, []).append(case)
    found = read_recipe_checkpoints() if TABLE.is_file() and "--again" not in sys.argv else {}
    weights = _weights(registry)
    for recipe, listed in cases.items():
        if found.get(recipe):
            continue
        row = _first(_candidates(recipe, listed, registry, weights), registry)
        print(recipe, row, file=sys.stderr)
        if row:
            fields = row["fields"].items()
            row["fields"] = {name: one if isinstance(one, int | float | dict) else str(one) for name, one in fields}
        found[recipe] = row or {}
        TABLE.write_text(yaml.safe_dump(found, sort_keys=False, width=120))


if __name__ == "__main__":
    main()
