"""Bearer tokens, stored as hashes.

A token itself is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator

from preshuffle.api.errors import ServeError
from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.text import field_problems, parse_yaml

Role = Literal["report", "admin"]
PREFIX: Final = "psh_"
"""Prefix of every token, for scanners that find leaked secrets."""
_BYTES: Final = 32
_MAX_FILE: Final = 1 << 20
_SHOWN: Final = 8
"""Problems of a file in one error, at most."""


class Token(Frozen):
    """One line of the tokens file.

    Attributes:
        name: of the holder; the history records it with each change.
        hash: ``sha256:`` and the digest of the token. A token is 256 random bits, so one round is enough.
        role: ``admin`` changes anything, ``report`` its own deployments only.
        deployments: globs of the deployments that a ``report`` token may change.
    """

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.@:-]+$")]
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    role: Role
    deployments: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _role_has_its_deployments(self) -> Token:
        if self.role == "report" and not self.deployments:
            raise ValueError("a report token needs deployments: a list of globs, such as ['gpt-oss-*']")
        if self.role == "admin" and self.deployments:
            raise ValueError("an admin token changes every deployment; deployments goes with role: report")
        return self

    def may_change(self, deployment: str | None) -> bool:
        """Whether the token may change a deployment (None: anything else)."""
        if self.role == "admin":
            return True
        return deployment is not None and any(fnmatchcase(deployment, glob) for glob in self.deployments)


class TokenFile(Frozen):
    """Content of the ``--tokens`` file."""

    tokens: Annotated[tuple[Token, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_and_hashes_differ(self) -> TokenFile:
        for field in ("name", "hash"):
            values = [getattr(token, field) for token in self.tokens]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"two tokens have the {field} {twice}")
        return self


class Tokens:
    """Known tokens by hash."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        """Store them."""
        self._by_hash = {token.hash: token for token in tokens}

    def find(self, secret: str) -> Token | None:
        """Return the token of a secret.

        Its hash is looked up, so that timing reveals nothing of other tokens.
        """
        return self._by_hash.get(hash_of(secret))


_NONE: Final = Tokens(())


def hash_of(secret: str) -> str:
    """Return the hash of a token as the file holds it."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def make_token(name: str, role: Role, deployments: tuple[str, ...] = ()) -> tuple[str, Token]:
    """Return a new secret and its entry in the tokens file.

    Raises:
        pydantic.ValidationError: the role and the deployments do not go together.
    """
    secret = PREFIX + secrets.token_urlsafe(_BYTES)
    return secret, Token(name=name, hash=hash_of(secret), role=role, deployments=deployments)


def load_tokens(path: str) -> Tokens:
    """Read a tokens file (YAML or JSON).

    Raises:
        ServeError: the file cannot be read or is not valid; names file, line and column.
    """
    tokens, problems = read_tokens(path)
    if problems:
        shown = (str(problem) if problem.line else f"--tokens {problem}" for problem in problems[:_SHOWN])
        raise ServeError("; ".join(shown))
    return tokens


def read_tokens(path: str, may_be_empty: bool = False) -> tuple[Tokens, list[Problem]]:
    """Read a tokens file; return tokens, or its problems.

    Args:
        path: of the file.
        may_be_empty: whether ``tokens: []`` is valid, which revokes every token.
    """
    try:
        if not Path(path).is_file() and Path(path).exists():  # a pipe would be waited for
            return _NONE, [Problem(path, 0, 0, "is not a regular file")]
        with Path(path).open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        text = data.decode()
    except OSError as error:
        return _NONE, [Problem(path, 0, 0, f"cannot be read: {error.strerror}")]
    except UnicodeDecodeError:
        return _NONE, [Problem(path, 0, 0, "is not text")]
    if len(data) > _MAX_FILE:
        return _NONE, [Problem(path, 0, 0, f"is larger than {_MAX_FILE} bytes")]
    document, problems = parse_yaml(text, path)
    if problems:
        return _NONE, problems
    if not isinstance(document.value, dict):
        message = "the key `tokens` is missing: the file begins with a line `tokens:`, its entries below"
        return _NONE, [Problem(path, 1, 1, message)]
    if may_be_empty and document.value == {"tokens": []}:
        return _NONE, []
    try:
        return Tokens(TokenFile.model_validate(document.value).tokens), []
    except ValidationError as error:
        # what was found is not repeated: it may be a hash, or a secret in the wrong place
        return _NONE, [
            document.problem(found, f"{field.field}: {field.message.partition(', found ')[0]}", field.valid)
            for found, field in field_problems(error)
        ]
