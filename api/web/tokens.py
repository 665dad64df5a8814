"""Bearer tokens: who may change what. The file holds their hashes; a token itself is shown once, when it is made."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator

from preshuffle.api.errors import ServeError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.text import field_problems, parse_yaml

Role = Literal["report", "admin"]
PREFIX: Final = "psh_"
"""What a token begins with, so that scanners for leaked secrets can tell one."""
_BYTES: Final = 32
_MAX_FILE: Final = 1 << 20


class Token(Frozen):
    """One line of the tokens file.

    Attributes:
        name: who holds the token; it goes into the history of what they change.
        hash: ``sha256:`` and the digest of the token. A token is 256 random bits, so one round is enough.
        role: ``admin`` changes anything, ``report`` its own deployments only.
        deployments: globs of the deployments that a ``report`` token may change.
    """

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.@:-]+$")]
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    role: Role
    deployments: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _has_what_its_role_needs(self) -> Token:
        if self.role == "report" and not self.deployments:
            raise ValueError("a report token needs deployments: a list of globs, such as ['gpt-oss-*']")
        if self.role == "admin" and self.deployments:
            raise ValueError("an admin token changes every deployment; deployments goes with role: report")
        return self

    def may_change(self, deployment: str | None) -> bool:
        """Whether the token may change a deployment, or (None) anything that is no deployment."""
        if self.role == "admin":
            return True
        return deployment is not None and any(fnmatchcase(deployment, glob) for glob in self.deployments)


class TokenFile(Frozen):
    """The file that ``--tokens`` names."""

    tokens: Annotated[tuple[Token, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _tells_them_apart(self) -> TokenFile:
        for field in ("name", "hash"):
            values = [getattr(token, field) for token in self.tokens]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"two tokens have the {field} {twice}")
        return self


class Tokens:
    """The tokens that a service knows, by hash."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        """Keep them."""
        self._by_hash = {token.hash: token for token in tokens}

    def find(self, secret: str) -> Token | None:
        """Return the token that a secret is. What is looked up is its hash, so timing tells nothing about others."""
        return self._by_hash.get(hash_of(secret))


def hash_of(secret: str) -> str:
    """Return what the file holds of a token."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def make_token(name: str, role: Role, deployments: tuple[str, ...] = ()) -> tuple[str, Token]:
    """Return a new secret, and the line of the file that knows it.

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
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        text = data.decode()
    except OSError as error:
        raise ServeError(f"--tokens {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ServeError(f"--tokens {path} is not text") from None
    if len(data) > _MAX_FILE:
        raise ServeError(f"--tokens {path} is larger than {_MAX_FILE} bytes")
    document, problems = parse_yaml(text, path)
    if not problems:
        try:
            return Tokens(TokenFile.model_validate(document.value).tokens)
        except ValidationError as error:
            problems = [
                document.problem(found, f"{field.field}: {field.message}", field.valid)
                for found, field in field_problems(error)
            ]
    raise ServeError("; ".join(str(problem) for problem in problems[:8]))
