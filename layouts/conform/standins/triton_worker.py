"""Child process: AITER's Triton MoE kernels on golden layers, interpreted or compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preshuffle.layouts.conform.standins.aiter_modules import GPU, install_aiter
from preshuffle.layouts.conform.standins.anything import StandInFinder, module_of
from preshuffle.layouts.conform.standins.requests import AnswerFile, read_request
from preshuffle.layouts.conform.standins.triton_moe import TritonMoe
from preshuffle.layouts.probe import decide_with_recipe, golden_query, probe
from preshuffle.registry import Decision, PreshuffleError, Query, Recipe, Registry
from preshuffle.registry.algebra.permutation import Permutation
from preshuffle.registry.base.words import Role
from preshuffle.registry.loading import Book

QUANTIZATIONS = {"Swiglu": "mxfp4", "Silu": "mxfp4-silu"}
"""Golden layer for each activation of the recipes."""
SIZES = {"hidden_size": 512, "intermediate_size": 512, "num_experts": 4, "top_k": 2}
"""Of the layers: small, and whole tiles of the kernel."""
WRONG = "scales of the next row"
"""Spoilt input that must not pass."""


class SpoiltScales:
    """Runner that gives every row the scales of another."""

    def __init__(self, runner: TritonMoe) -> None:
        """Take the runner to spoil."""
        self.runner = runner

    def __call__(
        self, tensors: dict[str, Tensor], decision: Decision, x: Tensor, topk_ids: Tensor, topk_weights: Tensor
    ) -> Tensor:
        """Return what the layer computes with them."""
        rolled = tensors["w13_weight_scale"].view(torch.uint8).roll(1, -1)
        return self.runner({**tensors, "w13_weight_scale": rolled}, decision, x, topk_ids, topk_weights)


class OtherLayout:
    """Runner that gives the kernel one tensor in another layout."""

    def __init__(self, runner: TritonMoe, role: Role, there: Permutation, here: Permutation) -> None:
        """Take the runner, the tensor's role, the other layout and the recipe's."""
        self.runner, self.role, self.there, self.here = runner, role, there, here

    def __call__(
        self, tensors: dict[str, Tensor], decision: Decision, x: Tensor, topk_ids: Tensor, topk_weights: Tensor
    ) -> Tensor:
        """Return what the layer computes with it."""
        own = tensors[self.role]
        data = own.view(torch.uint8).flatten()
        plain = torch.empty_like(data)
        plain[_sources(self.here, data.device)] = data
        laid = plain[_sources(self.there, data.device)].reshape(own.view(torch.uint8).shape).view(own.dtype)
        return self.runner({**tensors, self.role: laid}, decision, x, topk_ids, topk_weights)


def _sources(permutation: Permutation, device: torch.device) -> Tensor:
    """Return the logical position of the element at every address."""
    addresses = torch.arange(permutation.count, device=device)
    positions = torch.zeros_like(addresses)
    for size, stride in reversed(permutation.modes):
        positions += addresses % size * stride
        addresses //= size
    return positions


def _others(book: Book, recipe: Recipe, query: Query, registry: Registry) -> Iterator[tuple[str, Role, Any]]:
    """Yield every other layout that a tensor could be in: its name, the role, both permutations."""
    decision = decide_with_recipe(recipe, query, registry)
    for role, tensor in decision.tensors.items():
        unit = "group" if role.endswith("scale") else "byte" if role.endswith("weight") else ""
        shape = tensor.physical_shape
        if not unit or len(shape) != 3:
            continue
        size = (shape[0], shape[1], shape[2] * tensor.laid_bits // 8)
        here = book.layout(tensor.layout).bind(*size).permutation
        seen = {here}
        for entry in book.layouts.values():
            if entry.unit not in (unit, "any"):
                continue
            there = entry.layout().bind(*size).permutation
            if there not in seen:
                seen.add(there)
                yield f"{role} as {entry.id}", role, (there, here)


def main(path: str) -> None:
    """Run the recipes of a request at some token counts."""
    request = read_request(path)
    answers = AnswerFile(request["answers"])
    sys.meta_path.insert(0, StandInFinder(["aiter.ops.triton._gluon_kernels", "aiter.ops.triton.gluon"]))
    install_aiter(Path(request["root"]), Path(request["package"]))
    module_of(
        "aiter.ops.triton.utils.core",
        AITER_TRITON_CONFIGS_PATH=str(Path(request["package"]) / "ops" / "triton" / "configs"),
        USE_LRU_CACHE=False,
        load_config_json=lambda *_, **__: None,
    )
    registry = Registry.load(overlays=request["overlays"])
    for function, recipes in request["functions"].items():
        _run_function(answers, registry, request, function, recipes)


def _run_function(
    answers: AnswerFile, registry: Registry, request: dict[str, Any], function: str, recipes: list[tuple[str, str]]
) -> None:
    try:
        runner = TritonMoe(function, request["labels"])
    except (ImportError, AttributeError) as error:
        answers.write(function=function, missing=f"{type(error).__name__}: {error}"[:300])
        return
    tokens = request["tokens"]
    for number, (name, arch) in enumerate(recipes):
        GPU.gfx = arch
        case = _Case(answers, registry, function, registry.book.recipes[name], arch)
        case.run(runner, tokens)
        if number == 0:
            case.run(SpoiltScales(runner), tokens[-1:], WRONG)
        if request["other_layouts"]:
            case.run_other_layouts(runner, tokens[-1:])


@dataclass(frozen=True, slots=True)
class _Case:
    """One recipe through one function."""

    answers: AnswerFile
    registry: Registry
    function: str
    recipe: Recipe
    arch: str

    @property
    def query(self) -> Query:
        """The golden layer's query."""
        return golden_query(self.arch, QUANTIZATIONS[activation_of(self.recipe)], **SIZES)

    def run(self, runner: Any, tokens: list[int], spoilt: str = "") -> None:
        """Run the recipe's layer, and write each result."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        fields: dict[str, Any] = {
            "function": self.function,
            "recipe": self.recipe.id,
            "arch": self.arch,
            "spoilt": spoilt,
        }
        try:
            report = probe(
                runner, [self.recipe], self.query, registry=self.registry, tokens=tokens, device=device, repeats=0
            )
        except (PreshuffleError, KeyError) as error:
            self.answers.write(**fields, refused=f"{type(error).__name__}: {error}".splitlines()[0][:300])
            return
        for result in report.results:
            self.answers.write(**fields, result=result.model_dump(mode="json"))

    def run_other_layouts(self, runner: TritonMoe, tokens: list[int]) -> None:
        """Run it with each tensor in every other layout: none may pass."""
        try:
            others = list(_others(self.registry.book, self.recipe, self.query, self.registry))
        except (PreshuffleError, KeyError) as error:
            self.answers.write(function=self.function, missing=f"{type(error).__name__}: {error}"[:300])
            return
        for name, role, (there, here) in others:
            self.run(OtherLayout(runner, role, there, here), tokens, name)


def activation_of(recipe: Recipe) -> str:
    """Return the activation of the layer that a recipe is tried on."""
    return "Swiglu" if "w13_bias" in recipe.tensors else "Silu"


if __name__ == "__main__":
    main(sys.argv[1])
