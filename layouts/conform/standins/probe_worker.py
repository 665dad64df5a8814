"""Child process: golden layers through AITER on an AMD GPU.

No stand-ins: this is the real library on real hardware.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from preshuffle.layouts.conform.standins.requests import AnswerFile, read_request
from preshuffle.layouts.probe import choose_runner, golden_query, probe, select_recipes
from preshuffle.registry import PreshuffleError, Query, Registry


def main(path: str) -> None:
    """Probe every recipe of every golden layer that a request names."""
    request = read_request(path)
    answers = AnswerFile(request["answers"])
    registry = Registry.load(overlays=request["overlays"], kernel_tables="auto")
    chosen = choose_runner("aiter", None, registry)
    for quantization in request["quantizations"]:
        try:
            query = golden_query(chosen.arch or "gfx950", quantization)
            recipes = select_recipes(None, registry, query)
        except PreshuffleError as error:
            answers.write(quantization=quantization, refused=str(error).splitlines()[0][:400])
            continue
        for recipe in recipes:
            _probe(answers, registry, query, recipe.id, quantization, request["tokens"])


def _probe(
    answers: AnswerFile, registry: Registry, query: Query, recipe: str, quantization: str, tokens: Sequence[int]
) -> None:
    chosen = choose_runner("aiter", None, registry)
    try:
        report = probe(
            chosen.runner,
            select_recipes(recipe, registry, query),
            query,
            registry=registry,
            tokens=tokens,
            device=chosen.device,
            repeats=0,
        )
    except PreshuffleError as error:
        answers.write(quantization=quantization, recipe=recipe, refused=str(error).splitlines()[0][:400])
        return
    for result in report.results:
        answers.write(quantization=quantization, recipe=recipe, result=result.model_dump(mode="json"))


if __name__ == "__main__":
    main(sys.argv[1])
