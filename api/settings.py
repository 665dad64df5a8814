"""Settings of the service: defaults, then the environment, then options.

No web libraries are imported: ``preshuffle serve`` reads this module before it knows that they are installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from preshuffle.api.variables import LINK
from preshuffle.api.variables import PREFIX as PREFIX
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.text import field_problems

_URL: Final = r"^https?://[^\s/]+\S*$"
_LISTS: Final = frozenset({"book", "tables"})
_ROOT_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*")
TOP_PATHS: Final = frozenset(
    {
        *("book", "changes", "deployments", "docs", "healthz", "matrix", "metrics", "openapi.json", "plan", "readyz"),
        *("resolve", "static", "v1"),
    }
)
"""First parts of the service's own paths, with which a root path must not begin."""


def _root_path(text: str) -> str:
    """Return a root path without the slash at its end; empty for none."""
    path = text.rstrip("/")
    if not _ROOT_PATH.fullmatch(path):
        raise ValueError(f"{text!r} is no path to serve under; valid: /preshuffle, or /tools/preshuffle")
    if path.split("/")[1:2] and path.split("/")[1] in TOP_PATHS:
        raise ValueError(f"{text!r} begins as the service's own paths do; valid: /preshuffle, or another name")
    return path


def _public_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment; valid: https://HOST, or https://HOST/PATH")
    _root_path(parts.path)
    return url.rstrip("/")


class Settings(Frozen):
    """Settings of one service.

    Attributes:
        host: where it listens; anything but loopback needs ``tokens``.
        port: 0 takes a free one.
        db: the store, ``sqlite:///PATH``.
        book: overlay folders or files, later ones on top.
        tables: kernel tables (CSV files or folders, ``path@version`` ties one to an AITER); ``auto`` alone is what
            AITER would read here: the files of ``AITER_CONFIG_FMOE`` where it is set, else the installed AITER's.
        tokens: the file of bearer tokens; without one everything is open, on loopback only.
        reads: whether reads and questions are ``open`` to everyone or need a token too (``closed``).
        management_port: where ``/healthz``, ``/readyz`` and ``/metrics`` are served as well; ``/metrics`` is then not
            served on the main port. 0 takes a free one.
        head_seconds: how long a request line and its headers may take to arrive.
        log: ``json`` (one object a line) or ``text``.
        log_level: lines below this level are left out.
        history_rows: retention, in changes of all deployments together (of each at most 1000).
        history_days: retention in days.
        max_replicas: quota of stored replicas in all.
        max_mib: quota of stored reports and judgements in all, in MiB.
        token_replicas: quota of stored replicas of one token: those that it reported last.
        token_mib: quota of these replicas' reports and judgements, in MiB.
        public_url: where people reach the service; metrics and webhooks begin links with it.
        root_path: path under which a proxy offers the service: links, examples and the OpenAPI document begin with it.
            Requests may come with it or without (a proxy may cut it off). Left out, the path of ``public_url``.
        metric_deployments: deployments in a bad state that ``/metrics`` names, the worst first; 0 names none.
        webhook_url: where state changes are sent.
        webhook_format: of the bodies that are sent there.
        webhook_header_file: file of headers, ``Name: value`` a line, read anew for each request.
    """

    host: Annotated[str, Field(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    db: Annotated[str, Field(min_length=1)] = "sqlite:///preshuffle.db"
    book: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    tokens: Annotated[str, Field(min_length=1)] | None = None
    reads: Literal["open", "closed"] = "open"
    management_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    head_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    log: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    history_rows: Annotated[int, Field(ge=1000)] = 1_000_000
    history_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    max_replicas: Annotated[int, Field(ge=1)] = 100_000
    max_mib: Annotated[float, Field(gt=0, le=1 << 30)] = 1024.0
    token_replicas: Annotated[int, Field(ge=1)] = 50_000
    token_mib: Annotated[float, Field(gt=0, le=1 << 30)] = 512.0
    public_url: Annotated[str, Field(max_length=1024, pattern=_URL), AfterValidator(_public_url)] | None = None
    root_path: Annotated[str, Field(max_length=256), AfterValidator(_root_path)] | None = None
    metric_deployments: Annotated[int, Field(ge=0, le=1000)] = 100
    webhook_url: Annotated[str, Field(max_length=4096, pattern=_URL)] | None = None
    webhook_format: Literal["generic", "slack", "alertmanager"] = "generic"
    webhook_header_file: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("root_path")
    @classmethod
    def _agrees(cls, path: str | None, info: ValidationInfo) -> str | None:
        public = urlsplit(info.data.get("public_url") or "").path
        if path is not None and public not in ("", path):
            raise ValueError(f"{path!r} is not the path of the public URL, {public!r}; valid: one of them alone")
        return path

    @property
    def root(self) -> str:
        """Path that links begin with, as browsers see it; empty for none."""
        return urlsplit(self.public_url or "").path if self.root_path is None else self.root_path

    @property
    def links_base(self) -> str:
        """URL that links outside begin with; a path where none is known."""
        public = self.public_url or ""
        return public if urlsplit(public).path else public + self.root

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Read environment variables; options that are not None take precedence.

        The variables are ``PRESHUFFLE_HOST``, ``PRESHUFFLE_PORT`` and so on.

        ``PRESHUFFLE_BOOK`` and ``PRESHUFFLE_TABLES`` are lists, separated by ``:``. An empty variable counts as unset.

        Raises:
            QueryError: names the variable or option, what was found and what is valid.

        Example:
            >>> Settings.from_env({"PRESHUFFLE_PORT": "9000", "PRESHUFFLE_BOOK": "a:b"}, host=None).port
            9000
        """
        source = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name in cls.model_fields:
            text = source.get(PREFIX + name.upper(), "")
            if text:
                values[name] = tuple(part for part in text.split(":") if part) if name in _LISTS else text
        options = {name: value for name, value in given.items() if value is not None}
        try:
            return cls.model_validate({**values, **options})
        except ValidationError as error:
            problems = [problem for _, problem in field_problems(error)]
            raise QueryError([_named(problem, options, values) for problem in problems]) from None


def _named(problem: FieldProblem, options: Mapping[str, Any], variables: Mapping[str, Any]) -> FieldProblem:
    """Return the problem with the option or variable it came from."""
    top = problem.field.split(".")[0]
    if top == "webhook_url":  # what was found may be a secret
        problem = FieldProblem(top, "must be a URL that begins with http:// or https://", ())
    if top in options:
        return FieldProblem(f"--{top.replace('_', '-')}", problem.message, problem.valid)
    is_link = LINK.match(str(variables.get(top, ""))) is not None
    cause = " (Kubernetes sets this variable for a service of that name: enableServiceLinks: false)" if is_link else ""
    return FieldProblem(PREFIX + top.upper(), problem.message + cause, problem.valid)
