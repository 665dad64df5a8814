"""Extras of the project: what each gives, and whether it is installed.

Extras and their requirements are read from the metadata of the project's distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from preshuffle.api.doctor.check import Check
from preshuffle.api.doctor.installed import Installed, normalised
from preshuffle.registry.base.address_packages import ADDRESS_PACKAGES
from preshuffle.registry.base.requirements import extra_requirements

_NAME = "preshuffle"
GIVES: Final[Mapping[str, str]] = {
    "layouts": "the loader: apply, identify, verify",
    "remote": "checkpoints at s3://, gs://, hf://, …",
    "ray": "apply on a Ray cluster",
    "progress": "a bar with rate and remaining time in commands on whole checkpoints",
    "aiter": "AMD's AITER, compared with the layouts",
    "client": "the client, and the reporter that engines embed",
    "service": "the service: serve, store, token",
    "postgres": "the service's store on PostgreSQL",
    "proofs": "derive and conform: AMD's instructions decoded",
    "docs": "the documentation site",
}
"""What an extra gives, in a few words. Others, like ``dev``, are not for who uses the project."""


def check_extras(installed: Installed) -> Iterator[Check]:
    """Check every extra that the installed project has."""
    own = installed.distributions.get(_NAME)
    extras = own[0].metadata.get_all("Provides-Extra") if own else None
    for extra in extras or ():
        if extra in GIVES:
            yield check_extra(installed, extra)
            if extra == "remote":
                yield check_address_packages(installed)


def check_extra(installed: Installed, extra: str) -> Check:
    """Compare an extra's requirements with the installed versions."""
    present: list[str] = []
    unmet: list[str] = []
    for requirement in extra_requirements(_NAME, extra):
        if normalised(requirement.name) == _NAME:
            unmet += [f"extra {other} is not" for other in sorted(requirement.extras) if _lacks(installed, other)]
            continue
        version = installed.version(requirement.name)
        if version is None:
            unmet.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name} {version} is not {requirement.specifier}")
        else:
            present.append(f"{requirement.name} {version}")
    if unmet:
        fix = f'pip install "{_NAME}[{extra}]"'
        return Check(name=f"extra {extra}", status="info", detail=f"{', '.join(unmet)}; gives {GIVES[extra]}", fix=fix)
    return Check(name=f"extra {extra}", status="ok", detail=f"{', '.join(present)}; {GIVES[extra]}")


def check_address_packages(installed: Installed) -> Check:
    """List the packages that addresses need beside fsspec."""
    schemes: dict[str, list[str]] = {}
    for scheme, package in ADDRESS_PACKAGES.items():
        schemes.setdefault(package, []).append(f"{scheme}://")
    present = {package: version for package in schemes if (version := installed.version(package))}
    missing = [f"{package} for {', '.join(schemes[package])}" for package in schemes if package not in present]
    found = [f"{package} {version} for {', '.join(schemes[package])}" for package, version in present.items()]
    detail = "; ".join([*found, f"missing: {'; '.join(missing)}"] if missing else found)
    fix = " or ".join(f"pip install {package}" for package in schemes if package not in present)
    return Check(name="addresses", status="info" if missing else "ok", detail=detail, fix=fix or None)


def _lacks(installed: Installed, extra: str) -> bool:
    return check_extra(installed, extra).status != "ok"
