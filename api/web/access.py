"""Access rules: which token a request needs, by method and path."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

from preshuffle.api.web.problem import ProblemError
from preshuffle.api.web.tokens import Token, Tokens

OPEN: Final = frozenset({"/healthz", "/readyz"})
"""Probes: an orchestrator has no token."""
QUESTIONS: Final = frozenset({"/v1/resolve", "/v1/resolve/batch", "/v1/check", "/v1/check/batch"})
"""Paths whose POST changes nothing and costs little.

A plan is not among them: it changes nothing, but takes minutes and memory, and only operators need it.
"""
_DEPLOYMENTS: Final = "/v1/deployments/"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="preshuffle", Basic realm="preshuffle", charset="UTF-8"'}


@dataclass(frozen=True, slots=True)
class Need:
    """Right that a request needs.

    Attributes:
        kind: ``nothing``, to ``read``, or to ``change``.
        deployment: the deployment that it changes; None for everything else.
    """

    kind: Literal["nothing", "read", "change"]
    deployment: str | None = None


def need_of(method: str, path: str) -> Need:
    """Return what a request needs.

    A POST, PUT or DELETE of a path that is not in ``QUESTIONS`` is a change.
    """
    if method in _READING:
        return Need("nothing" if path in OPEN or path.startswith("/static/") else "read")
    if path in QUESTIONS:
        return Need("read")
    if path.startswith(_DEPLOYMENTS):
        return Need("change", path.removeprefix(_DEPLOYMENTS).partition("/")[0] or None)
    return Need("change")


class Access:
    """Access rules of one service.

    Args:
        tokens: the known tokens, replaced when their file changes; None where none is needed (loopback only).
        reads: whether reads and questions need a token too.
    """

    def __init__(self, tokens: Tokens | None, reads: Reads) -> None:
        """Store both."""
        self.tokens = tokens
        self.reads = reads

    def admit(self, method: str, path: str, authorization: str | None) -> str | None:
        """Return the name of the request's token, None without one.

        Raises:
            ProblemError: 401 a token is needed or not known, 403 the token may not do this.
        """
        if self.tokens is None:
            return None
        token = None if authorization is None else self._token(self.tokens, authorization)
        need = need_of(method, path)
        if need.kind == "nothing" or (need.kind == "read" and self.reads == "open"):
            return token.name if token else None
        if token is None:
            action = "changing anything" if need.kind == "change" else "reading"
            raise ProblemError(
                "unauthorized", f"{action} here needs a token: Authorization: Bearer …", headers=_CHALLENGE
            )
        if need.kind == "change" and not token.may_change(need.deployment):
            raise ProblemError("forbidden", _refusal(token, need))
        return token.name

    @staticmethod
    def _token(tokens: Tokens, authorization: str) -> Token:
        token = tokens.find(_secret(authorization))
        if token is None:
            detail = "this token is unknown; valid: Authorization: Bearer TOKEN (or Basic, the token as password)"
            raise ProblemError("unauthorized", detail, headers=_CHALLENGE)
        return token


def _secret(authorization: str) -> str:
    """Return the token in ``Authorization``: Bearer, or the Basic password of browsers."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _refusal(token: Token, need: Need) -> str:
    if need.deployment is None:
        return f"token {token.name!r} reports deployments; this needs an admin token"
    globs = ", ".join(token.deployments)
    return f"token {token.name!r} may change {globs}; not {unquote(need.deployment)!r}"


Reads = Literal["open", "closed"]
