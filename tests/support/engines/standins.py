"""Stand-ins for ROCm and third-party packages, so that engines import on a CPU.

Only what an engine needs to be imported is replaced. Nothing that computes bytes of a layer is: its own modules, torch
and AITER's layout functions are the real ones.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from pydantic_core.core_schema import any_schema


class Anything(type):
    """Metaclass of a class that accepts every attribute, call, index and decorator use."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = stand_in_class(name)
        setattr(cls, name, made)
        return made

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return what is decorated, else the class itself."""
        if cls.__dict__.get("is_stand_in") is None:  # an engine's own class below a stand-in
            return super().__call__(*args, **kwargs)
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else cls

    def __getitem__(cls, _: Any) -> Any:
        return cls

    def __setitem__(cls, *_: Any) -> None:
        """Forget the item."""

    def __contains__(cls, _: Any) -> bool:
        return False

    def __or__(cls, _: Any) -> Any:
        return cls

    __ror__ = __or__

    def __iter__(cls) -> Any:
        return iter(())


def stand_in_class(name: str) -> Any:
    """Return a class that can be anything an engine imports: a base class, a decorator, a namespace."""
    members = {
        "is_stand_in": True,
        "__init_subclass__": classmethod(lambda cls, **_: None),
        "__get_pydantic_core_schema__": classmethod(lambda cls, *_: any_schema()),
    }
    return Anything(name, (), members)


class StandInModule(ModuleType):
    """Module whose every attribute is a class that accepts everything."""

    __path__ = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = stand_in_class(name)
        setattr(self, name, made)
        return made


class StandInFinder(MetaPathFinder, Loader):
    """Import hook that finds stand-ins for the named packages and for what lies below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return a spec if the module is named and nothing else has found it."""
        if any(fullname == name or fullname.startswith(f"{name}.") for name in self.names):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the stand-in."""
        return StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: all attributes are made when they are asked for."""


def install_standins(absent: Sequence[str], replaced: Sequence[str] = ()) -> None:
    """Let absent packages be imported, and replace modules that have nothing to do with experts."""
    sys.modules.setdefault("regex", re)
    sys.meta_path.append(StandInFinder(absent))
    sys.meta_path.insert(0, StandInFinder(replaced))


def module_of(name: str, **attributes: Any) -> ModuleType:
    """Put a module of the given attributes into `sys.modules`, the rest of it a stand-in."""
    made = StandInModule(name)
    made.__spec__ = ModuleSpec(name, None, is_package=True)
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    sys.modules[name] = made
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, made)
    return made


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


def installed(name: str) -> bool:
    """Say whether a module can be found."""
    return importlib.util.find_spec(name) is not None
