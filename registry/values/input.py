"""Input: base of the values that users send."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ValidationError

from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.text import field_problems


class Input(Frozen):
    """Base of public values that are read from users' JSON."""

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Validate a mapping.

        Raises:
            QueryError: names each wrong field, what was found and what is valid.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise QueryError([problem for _, problem in field_problems(error)]) from None
