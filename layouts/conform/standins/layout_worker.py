"""Child process: AITER's own layout functions run on known bytes."""

from __future__ import annotations

import base64
import importlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from preshuffle.layouts.conform.standins.aiter_modules import GPU, install_aiter
from preshuffle.layouts.conform.standins.known_bytes import known_bytes
from preshuffle.layouts.conform.standins.requests import AnswerFile, read_request

POISONS = (0xA5, 0x5A)
"""What uninitialised memory is filled with, run by run; bytes that follow it were never written."""


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """Return the bytes that a function gives, or what it raised."""
    GPU.gfx = case["arch"]
    try:
        module = importlib.import_module(case["module"])
        function = getattr(module, case["name"])
    except (ImportError, AttributeError) as error:
        return {"missing": f"{type(error).__name__}: {error}"[:200]}
    tensor = known_bytes(case["shape"], getattr(torch, case["dtype"]))
    tensor = tensor.flatten(0, 1) if case["flat"] else tensor
    results = []
    for poison in POISONS:
        try:
            with poisoned(poison) as allocated:
                results.append(function(tensor, *_arguments(case)))
        except Exception as error:
            return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]}
        if not allocated:
            break
    first = _bytes(results[0])
    unwritten = first != _bytes(results[-1])
    return {
        "shape": list(results[0].shape),
        "is_shuffled": bool(getattr(results[0], "is_shuffled", False)),
        "bytes": _packed(first),
        "unwritten": _packed(unwritten.to(torch.uint8)) if bool(unwritten.any()) else None,
        "line": function.__code__.co_firstlineno if hasattr(function, "__code__") else None,
    }


@contextmanager
def poisoned(value: int) -> Iterator[list[int]]:
    """Fill what ``torch.empty`` allocates; yield the sizes."""
    real = torch.empty
    allocated: list[int] = []

    def filled(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = real(*args, **kwargs)
        allocated.append(made.numel())
        if made.numel() and made.ndim:
            made.view(torch.uint8).fill_(value)
        return made

    torch.empty = filled
    try:
        yield allocated
    finally:
        torch.empty = real


def _arguments(case: dict[str, Any]) -> list[Any]:
    given: list[Any] = []
    for argument in case["arguments"]:
        value = case["shape"][0] if argument == "experts" else argument
        given.append(tuple(value) if isinstance(value, list) else value)
    return given


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes in the order in which they lie in memory."""
    if not tensor.is_contiguous() and tensor.transpose(-1, -2).is_contiguous():
        tensor = tensor.transpose(-1, -2)
    return tensor.contiguous().view(torch.uint8).flatten()


def _packed(values: torch.Tensor) -> str:
    return base64.b64encode(zlib.compress(values.numpy().tobytes(), 1)).decode()


def main(path: str, install: Callable[..., Any] = install_aiter) -> None:
    """Run all cases of a request."""
    request = read_request(path)
    install(Path(request["root"]), Path(request["package"]))
    answers = AnswerFile(request["answers"])
    for number, case in enumerate(request["cases"]):
        answers.write(number=number, **run_case(case))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
