"""Troubles of a deployment: where, since when, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from preshuffle.api.answers import DeploymentView, ReplicaView
from preshuffle.api.fleet import State
from preshuffle.api.pages.layer_section import LayerSection
from preshuffle.registry.values.finding import Finding

MOST: Final = 8
"""Troubles that a page lists at its top."""
_RIGHT: Final = ("ok", "unknown")
_SILENT: Final[dict[State, str]] = {
    "stale": "see why it sends no heartbeat, or forget it",
    "drifted": "reload it when convenient: the registry now decides differently than when it was loaded",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong.

    Attributes:
        state: a verdict of layers, or the state of silent or drifted replicas.
        replicas: which have it.
        nodes: their machines, where they are known.
        layers: which layers; None where it is the whole replica.
        roles: the tensors that findings name.
        codes: of the findings.
        since: when the first of the replicas got its state; None where the history does not reach back.
        target: the section that shows it.
    """

    state: State
    replicas: tuple[int, ...]
    nodes: tuple[str, ...]
    layers: str | None
    roles: tuple[str, ...]
    codes: tuple[str, ...]
    since: datetime | None
    fix: str | None
    target: str | None


def troubles(
    view: DeploymentView, sections: Sequence[LayerSection], since: Mapping[int, datetime]
) -> tuple[Trouble, ...]:
    """Return what is wrong with a deployment, the worst first.

    Args:
        view: the deployment.
        sections: of its page, the worst first.
        since: when each replica got its state.
    """
    return (*_of_layers(view, sections, since), *_of_replicas(view, since))


def fixes(found: Sequence[Trouble]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each fix once, with the codes of what it mends."""
    codes: dict[str, dict[str, None]] = {}
    for trouble in found:
        if trouble.fix:
            codes.setdefault(trouble.fix, {}).update(dict.fromkeys(trouble.codes[:1] or (trouble.state,)))
    return tuple((fix, tuple(names)) for fix, names in codes.items())


def _of_layers(
    view: DeploymentView, sections: Sequence[LayerSection], since: Mapping[int, datetime]
) -> Iterator[Trouble]:
    replicas = {replica.replica: replica for replica in view.replicas}
    for section in sections:
        if section.group.verdict in _RIGHT:
            continue
        findings = _gravest(section.group.findings)
        yield Trouble(
            state=section.group.verdict,
            replicas=section.replicas,
            nodes=_nodes([replicas[number] for number in section.replicas]),
            layers=section.group.layers,
            roles=tuple(dict.fromkeys(finding.role for finding in findings if finding.role)),
            codes=tuple(dict.fromkeys(finding.code for finding in findings)),
            since=_first(since, section.replicas),
            fix=next((finding.fix for finding in findings if finding.fix), None),
            target=section.ident,
        )


def _of_replicas(view: DeploymentView, since: Mapping[int, datetime]) -> Iterator[Trouble]:
    for state, fix in _SILENT.items():
        found = [replica for replica in view.replicas if replica.state == state]
        if found:
            numbers = tuple(replica.replica for replica in found)
            yield Trouble(state, numbers, _nodes(found), None, (), (), _first(since, numbers), fix, None)


def _gravest(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return the errors; the warnings where there are no errors."""
    errors = [finding for finding in findings if finding.severity == "error"]
    return errors or findings


def _nodes(replicas: Sequence[ReplicaView]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(replica.node for replica in replicas if replica.node))


def _first(since: Mapping[int, datetime], replicas: Sequence[int]) -> datetime | None:
    return min((since[number] for number in replicas if number in since), default=None)
