"""Stand-in for ROCm in torch; tensors stay on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

COMPUTE_UNITS: Final = {"gfx950": 256, "gfx942": 304, "gfx1250": 256}
_MEMORY: Final = 288 << 30


class PretendedProperties:
    """What torch says about the GPU."""

    def __init__(self, arch: str) -> None:
        """Describe a GPU of an architecture."""
        self.gcnArchName = f"{arch}:sramecc+:xnack-"
        self.name = f"AMD {arch}"
        self.multi_processor_count = COMPUTE_UNITS[arch]
        self.total_memory = _MEMORY
        self.major, self.minor = int(arch[3:-2]), int(arch[-2], 16)
        self.warp_size = 64


def pretend_rocm(arch: str) -> None:
    """Make torch report ROCm with GPUs of one architecture."""
    properties = PretendedProperties(arch)
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
        "mem_get_info": lambda *_, **__: (_MEMORY, _MEMORY),
        "set_device": lambda *_: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.accelerator.empty_cache = lambda: None
