"""Stand-ins for ROCm and third-party packages, so that engines import on a CPU.

Only what an engine needs to be imported is replaced. Nothing that computes bytes of a layer is: its own modules, torch
and AITER's layout functions are the real ones.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from preshuffle.layouts.conform.standins import anything
from preshuffle.layouts.conform.standins.anything import installed, module_of

__all__ = ["COMPUTE_UNITS", "install_standins", "installed", "module_of", "pretend_rocm"]


def install_standins(absent: Sequence[str], replaced: Sequence[str] = ()) -> None:
    """Let absent packages be imported, and replace modules that have nothing to do with experts."""
    sys.modules.setdefault("regex", re)
    anything.install_standins(absent, replaced)


COMPUTE_UNITS = {"gfx950": 256, "gfx942": 304, "gfx1250": 256}


class DeviceProperties:
    """What torch says about the GPU."""

    def __init__(self, arch: str) -> None:
        self.gcnArchName = f"{arch}:sramecc+:xnack-"
        self.name = f"AMD {arch}"
        self.multi_processor_count = COMPUTE_UNITS[arch]
        self.total_memory = 288 << 30
        self.major, self.minor = int(arch[3:-2]), int(arch[-2], 16)
        self.warp_size = 64


def pretend_rocm(arch: str) -> None:
    """Let torch say that it runs on ROCm with GPUs of one architecture; tensors stay on the CPU."""
    properties = DeviceProperties(arch)
    torch.version.hip = "7.2.0"
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 8,
        "current_device": lambda: 0,
        "get_device_properties": lambda *_, **__: properties,
        "get_device_name": lambda *_, **__: properties.name,
        "get_device_capability": lambda *_, **__: (properties.major, properties.minor),
        "empty_cache": lambda: None,
        "synchronize": lambda *_, **__: None,
        "mem_get_info": lambda *_, **__: (properties.total_memory, properties.total_memory),
        "set_device": lambda *_: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.accelerator.empty_cache = lambda: None
