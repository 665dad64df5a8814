"""The commands of ``preshuffle``: one module each, imported only when the command is asked for."""

from __future__ import annotations

from typing import Final

COMMANDS: Final[dict[str, str]] = {
    "resolve": "decide layouts, call and kernels for a query",
    "explain": "say why: every rule, what it needed, what it found",
    "check": "compare what a deployment did with itself; say what is wrong and how to mend it",
    "layouts": "list the layouts, or show one: its bytes on a shape",
    "kernels": "predict the kernels that AITER picks",
    "identify": "say which layout live bytes are in",
    "probe": "run a golden layer through a kernel, against a float64 reference",
    "registry": "check, show, compare or describe the registry's book",
    "serve": "answer over HTTP",
    "deployments": "list or show the deployments that a service knows",
    "plan": "say what another book, tables or AITER would change for them",
    "token": "make a bearer token for the service",
    "doctor": "say what is installed here and what works",
    "completion": "print a completion script for a shell",
}
"""Every command and what it does; ``preshuffle.api.commands.<name>`` holds it."""
