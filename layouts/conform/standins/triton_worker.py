"""Child process: AITER's Triton MoE kernels on golden layers, interpreted or compiled."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preshuffle.layouts.conform.standins.aiter_modules import GPU, install_aiter
from preshuffle.layouts.conform.standins.anything import StandInFinder, module_of
from preshuffle.layouts.conform.standins.requests import AnswerFile, read_request
from preshuffle.layouts.conform.standins.triton_moe import TritonMoe
from preshuffle.layouts.probe import golden_query, probe
from preshuffle.registry import Decision, PreshuffleError, Query, Recipe, Registry

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


def main(path: str) -> None:
    """Run the recipes of a request at some token counts."""
    request = read_request(path)
    answers = AnswerFile(request["answers"])
    sys.meta_path.insert(0, StandInFinder(["aiter.ops.triton._gluon_kernels", "aiter.ops.triton.gluon"]))
    install_aiter(Path(request["root"]), Path(request["package"]))
    module_of(
        "aiter.ops.triton.utils.core",
        AITER_TRITON_CONFIGS_PATH=str(Path(request["package"]) / "ops" / "triton" / "configs"),
        load_config_json=lambda *_, **__: None,
    )
    registry = Registry.load(overlays=request["overlays"])
    try:
        runner = TritonMoe(request["labels"])
    except (ImportError, AttributeError) as error:
        answers.write(missing=f"{type(error).__name__}: {error}"[:300])
        return
    for number, (name, arch) in enumerate(request["recipes"]):
        GPU.gfx = arch
        recipe = registry.book.recipes[name]
        _run(answers, registry, runner, recipe, arch, request["tokens"], "")
        if number == 0:
            _run(answers, registry, SpoiltScales(runner), recipe, arch, request["tokens"][-1:], WRONG)


def _run(
    answers: AnswerFile,
    registry: Registry,
    runner: Any,
    recipe: Recipe,
    arch: str,
    tokens: list[int],
    spoilt: str,
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fields: dict[str, Any] = {"recipe": recipe.id, "arch": arch, "spoilt": spoilt}
    try:
        query: Query = golden_query(arch, QUANTIZATIONS[activation_of(recipe)], **SIZES)
        report = probe(runner, [recipe], query, registry=registry, tokens=tokens, device=device, repeats=0)
    except (PreshuffleError, KeyError) as error:
        answers.write(**fields, refused=f"{type(error).__name__}: {error}".splitlines()[0][:300])
        return
    for result in report.results:
        answers.write(**fields, result=result.model_dump(mode="json"))


def activation_of(recipe: Recipe) -> str:
    """Return the activation of the layer that a recipe is tried on."""
    return "Swiglu" if "w13_bias" in recipe.tensors else "Silu"


if __name__ == "__main__":
    main(sys.argv[1])
