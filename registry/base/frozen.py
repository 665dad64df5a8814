"""Frozen pydantic models and number types that values share."""

from __future__ import annotations

from functools import cache
from types import GenericAlias
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from preshuffle.registry.base.versions import version_key


def _version(value: str) -> str:
    version_key(value)
    return value


Version = Annotated[str, AfterValidator(_version)]


def number(value: Any) -> Any:
    """Refuse true and false where a number is meant."""
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, found {value}")
    return value


Size = Annotated[int, Field(ge=1, le=2**20), BeforeValidator(number)]


Tokens = Annotated[int, Field(ge=1, le=2**31), BeforeValidator(number)]


Clamp = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Ranks = Annotated[int, Field(ge=1, le=4096), BeforeValidator(number)]


class Frozen(BaseModel):
    """Immutable base of public values; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def altered(self, **fields: Any) -> Self:
        """Return an unvalidated copy with other values: ``model_copy`` for hot paths."""
        return unvalidated(type(self), {**self.__dict__, **fields}, self.__pydantic_fields_set__ | fields.keys())


Model = TypeVar("Model", bound=BaseModel)


_set = object.__setattr__


def unvalidated(kind: type[Model], values: dict[str, Any], stated: set[str] | None = None) -> Model:
    """Construct a model from valid values: ``model_construct`` for hot paths.

    All fields must be given.
    """
    made = kind.__new__(kind)
    _set(made, "__dict__", values)
    _set(made, "__pydantic_fields_set__", _all_fields(kind) if stated is None else stated)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


@cache
def _all_fields(kind: type[BaseModel]) -> set[str]:
    """Return the names of all fields, which models share that were given all: nobody may change a frozen model's."""
    return set(kind.model_fields)


Key = TypeVar("Key")


Value = TypeVar("Value")


class FrozenDict(dict[Key, Value]):
    """Immutable dict: every mutation raises TypeError; hashable if its values are.

    As the annotation of a pydantic field it validates and serialises as ``dict`` does.

    Example:
        >>> FrozenDict(tp=8) == {"tp": 8}
        True
    """

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash the items, whatever their order."""
        return hash(frozenset(self.items())) if self else 0

    def __reduce__(self) -> tuple[type[Self], tuple[dict[Key, Value]]]:
        """Rebuild copies and pickles from the items."""
        return type(self), (dict(self),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate as the dict of the same type arguments, then freeze."""
        return no_info_after_validator_function(cls, handler(GenericAlias(dict, get_args(source) or (Any, Any))))

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"{type(self).__name__} is immutable; build another one")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def freeze(value: Any) -> Any:
    """Freeze JSON data to the last level.

    Dicts become ``FrozenDict``, lists become tuples.
    """
    if isinstance(value, dict):
        return FrozenDict({name: freeze(item) for name, item in value.items()})
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value
