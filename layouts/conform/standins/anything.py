"""Stand-ins for packages and compiled parts that are not here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Anything(type):
    """Metaclass of classes that accept every use."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = stand_in_class(name)
        setattr(cls, name, made)
        return made

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return what is decorated, else the class itself."""
        if cls.__dict__.get("is_stand_in") is None:  # a foreign class below a stand-in
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
    """Return a class usable as base class, decorator or namespace."""
    members = {
        "is_stand_in": True,
        "__init_subclass__": classmethod(lambda cls, **_: None),
        "__get_pydantic_core_schema__": classmethod(lambda cls, *_: {"type": "any"}),
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
    """Import hook that finds stand-ins for named packages and their submodules."""

    def __init__(self, names: Sequence[str]) -> None:
        """Take the packages' names."""
        self.names = tuple(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return a spec if the module is named."""
        if any(fullname == name or fullname.startswith(f"{name}.") for name in self.names):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the stand-in."""
        return StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: all attributes are made when they are asked for."""


def install_standins(absent: Sequence[str], replaced: Sequence[str] = ()) -> None:
    """Let absent packages be imported, and replace named modules."""
    sys.meta_path.append(StandInFinder(absent))
    sys.meta_path.insert(0, StandInFinder(replaced))


def module_of(name: str, **attributes: Any) -> ModuleType:
    """Put a module with given attributes into ``sys.modules``."""
    made = StandInModule(name)
    made.__spec__ = ModuleSpec(name, None, is_package=True)
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    sys.modules[name] = made
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, made)
    return made


def installed(name: str) -> bool:
    """Return whether a module can be found."""
    return importlib.util.find_spec(name) is not None
