"""Input: base of the values that users send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationError

from preshuffle.registry.base.errors import FieldProblem, QueryError
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
            found = [problem for _, problem in field_problems(error)]
            if error.errors(include_url=False)[0]["loc"] == () and not isinstance(value, Mapping):
                message = found[0].message.replace("dictionary", "dictionary of these fields")
                found = [FieldProblem("(whole)", message, tuple(cls.model_fields))]
            raise QueryError(found) from None
