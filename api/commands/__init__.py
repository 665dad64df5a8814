"""Commands of ``preshuffle``, one module each, imported on demand."""

from __future__ import annotations

from typing import Final

COMMANDS: Final[dict[str, str]] = {
    "resolve": "decide layouts, call and kernels for a query",
    "explain": "explain a decision: every rule, what it required, what it found",
    "check": "check an observed deployment; show what is wrong and how to fix it",
    "layouts": "list the layouts, or show one: its bytes on a shape",
    "kernels": "predict the kernels that AITER picks",
    "matrix": "show which models resolve on which GPUs",
    "identify": "identify the layout of live bytes",
    "probe": "test kernels on a golden layer against a float64 reference",
    "derive": "derive the layouts that a prebuilt kernel reads, without a GPU",
    "conform": "hold the book against a real AITER, claim by claim",
    "apply": "lay a whole checkpoint out ahead, for every rank",
    "verify": "prove that a laid-out checkpoint is right, by samples or byte by byte",
    "restore": "restore the checkpoint from what was laid out",
    "convert": "lay a laid-out checkpoint out for other ranks, GPUs or engines",
    "registry": "check, show, compare, describe or extend the registry's book",
    "serve": "serve the HTTP API and the pages",
    "deployments": "list or show the deployments of a service",
    "plan": "plan a rollout: what another book, tables or AITER would change",
    "store": "check, back up or restore the store of a service",
    "token": "create a bearer token for the service",
    "doctor": "diagnose this installation",
    "completion": "print a completion script for a shell",
}
"""Every command and what it does; ``module_of`` says which module holds it."""

FOLDERS: Final[dict[str, str]] = {
    "apply": "checkpoints",
    "verify": "checkpoints",
    "restore": "checkpoints",
    "convert": "checkpoints",
}
"""Folders of commands that lie in one together."""

EXTRAS: Final[dict[str, str]] = {
    "identify": "layouts",
    "probe": "layouts",
    "conform": "layouts",
    "derive": "proofs",
    "apply": "layouts",
    "verify": "layouts",
    "restore": "layouts",
    "convert": "layouts",
    "serve": "service",
    "deployments": "service",
    "plan": "service",
    "store": "service",
    "token": "service",
}
"""Extras that whole commands need; of others an option may (``--server``), and says so itself."""


def module_of(command: str) -> str:
    """Return the name of the module that holds a command."""
    folder = FOLDERS.get(command)
    return ".".join(part for part in ("preshuffle.api.commands", folder, command) if part)
