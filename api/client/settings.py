"""Settings of engines that report: defaults, then the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from preshuffle.api.fleet import (
    DeploymentName,
    Labels,
    Line,
    Link,
    PipelineStage,
    ReplicaNumber,
    report_number,
    stage_text,
)
from preshuffle.registry.base.errors import FieldProblem, PlacedError, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.text import field_problems

PREFIX: Final = "PRESHUFFLE_SERVICE_"
_OF_COMMANDS: Final = {"url": "PRESHUFFLE_SERVER", "token": "PRESHUFFLE_TOKEN"}
"""Variables of the command line that count too: the service of ``--server``, and its token."""
SPOOL_OFF: Final = "off"
_Text = Annotated[str, Field(min_length=1, max_length=4096)]


def _pairs(value: Any) -> Any:
    """Read ``team=a,tier=prod``."""
    if not isinstance(value, str):
        return value
    parts = [part.strip().partition("=") for part in value.split(",")]
    if not all(key and mark for key, mark, _ in parts):
        raise ValueError(f"{value!r} is no list of labels; valid: team=a,tier=prod")
    return {key: text for key, _, text in parts}


class ServiceSettings(Frozen):
    """Where and as what an engine reports.

    Attributes:
        url: of the service; without one the embedded book judges.
        token: bearer token, if the service requires one.
        token_file: file that holds it instead; it is read for every request.
        ca_file: certificates that the service's is checked against, instead of the usual ones.
        cert_file: certificate that the engine shows.
        key_file: its key, where that is in a file of its own.
        timeout_s: seconds for each step of a request.
        deployment: name under which the engine reports.
        replica: number of this engine in the deployment.
        pipeline: which stage of this engine's pipeline reports, where there are several; in a variable as ``1/4``.
        node: its machine; the host's name if left out.
        labels: of the deployment, all of them; in a variable as ``team=a,tier=prod``. Left out, they stay.
        owner: who looks after the deployment.
        link: to the deployment's dashboard or runbook.
        ttl_s: seconds without a heartbeat after which the replica is stale; a heartbeat is sent three times in it.
        spool: folder of reports that wait for the service; ``off`` keeps them in memory.
        spool_mib: limit of their size in all, in MiB.
        spool_entries: limit of their number.
        goodbye: whether the replica is forgotten when the engine ends by itself.
    """

    url: _Text | None = None
    token: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(default=None, repr=False)
    token_file: _Text | None = None
    ca_file: _Text | None = None
    cert_file: _Text | None = None
    key_file: _Text | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 2.0
    deployment: DeploymentName | None = None
    replica: ReplicaNumber = 0
    pipeline: Annotated[PipelineStage, BeforeValidator(stage_text)] | None = None
    node: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    labels: Annotated[Labels, BeforeValidator(_pairs)] | None = None
    owner: Line | None = None
    link: Link | None = None
    ttl_s: Annotated[int, Field(ge=3, le=31_536_000)] = 60
    spool: _Text | None = None
    spool_mib: Annotated[float, Field(gt=0, le=1 << 20)] = 64.0
    spool_entries: Annotated[int, Field(ge=1, le=65_536)] = 4096
    goodbye: bool = True

    @field_validator("url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        scheme, _, rest = (url or "http://host").partition("://")
        if scheme not in ("http", "https") or not rest.strip("/") or "?" in rest or "#" in rest:
            raise ValueError(f"{url!r} is no address of a service; valid: http://HOST:PORT or https://HOST/PATH")
        return url

    @model_validator(mode="after")
    def _has_room_for_stages(self) -> Self:
        try:
            report_number(self.replica, self.pipeline)
        except QueryError as error:
            raise PlacedError(("replica",), error.problems[0].message) from None
        return self

    @property
    def number(self) -> int:
        """Number under which this process reports: the replica's, or its stage's."""
        return report_number(self.replica, self.pipeline)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> ServiceSettings:
        """Read environment variables; arguments that are not None take precedence.

        The variables are ``PRESHUFFLE_SERVICE_URL``, ``PRESHUFFLE_SERVICE_TOKEN`` and so on. Where these two are unset,
        the command line's ``PRESHUFFLE_SERVER`` and ``PRESHUFFLE_TOKEN`` count. An empty variable counts as unset.

        Raises:
            QueryError: names the variable or argument, what was found and what is valid.

        Example:
            >>> ServiceSettings.from_env({"PRESHUFFLE_SERVER": "http://registry:8080"}, replica=3).url
            'http://registry:8080'
        """
        source = os.environ if environ is None else environ
        names = {name: (PREFIX + name.upper(), _OF_COMMANDS.get(name, "")) for name in cls.model_fields}
        found = {name: next((one for one in known if source.get(one)), None) for name, known in names.items()}
        values: dict[str, Any] = {name: source[variable] for name, variable in found.items() if variable}
        options = {name: value for name, value in given.items() if value is not None}
        try:
            return cls.model_validate({**values, **options})
        except ValidationError as error:
            problems = [problem for _, problem in field_problems(error)]
            raise QueryError([_named(problem, found, options) for problem in problems]) from None

    def spool_folder(self) -> Path | None:
        """Return the spool's folder; None keeps reports in memory."""
        if self.spool == SPOOL_OFF or self.deployment is None:
            return None
        place = Path(self.spool) if self.spool else default_spool()
        return place / f"{self.deployment}@{self.number}" if place else None


def default_spool(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the user's folder for spools; None without a home.

    It is where the XDG base directory specification places state.
    """
    source = os.environ if environ is None else environ
    state = source.get("XDG_STATE_HOME") or ""
    home = source.get("HOME") or ""
    if not Path(state).is_absolute():
        state = f"{home}/.local/state" if Path(home).is_absolute() else ""
    return Path(state) / "preshuffle" / "reports" if state else None


def _named(problem: FieldProblem, found: Mapping[str, str | None], options: Mapping[str, Any]) -> FieldProblem:
    """Return the problem with the variable or argument it came from."""
    name = problem.field.split(".")[0]
    place = name if name in options else found.get(name) or name
    return FieldProblem(place, problem.message, problem.valid)
