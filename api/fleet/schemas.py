"""JSON Schemas and examples of what users send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import preshuffle
from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.registry.values.conformance import ConformanceReport
from preshuffle.registry.values.input import Input
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_QUERY: Final[dict[str, Any]] = {
    "model": "openai/gpt-oss-120b",
    "arch": "gfx950",
    "activation_dtype": "fp4x2",
    "aiter": "0.1.20",
}
_APPLIED: Final[dict[str, Any]] = {
    "gate_mode": "separated",
    "tensors": {
        "w13_weight": {"layout": "sep16", "is_shuffled": True},
        "w13_weight_scale": {"layout": "e8"},
    },
}


@dataclass(frozen=True, slots=True)
class InputForm:
    """Form of one input: model, title and example."""

    model: type[Input]
    title: str
    example: Mapping[str, Any]


_OBSERVATION: Final[dict[str, Any]] = {"query": _QUERY, "applied": _APPLIED}
_DIGEST: Final = "sha256:" + "0" * 64
_CONFORMANCE: Final[dict[str, Any]] = ConformanceReport.of(
    preshuffle=preshuffle.__version__,
    registry_digest=_DIGEST,
    aiter={"id": "0.1.20.post1", "version": "0.1.20.post1", "digest": _DIGEST, "place": "installed"},
    claims={"features": {"tried": 23, "agreed": 23}},
).model_dump(mode="json")
INPUT_FORMS: Final[Mapping[str, InputForm]] = {
    "query": InputForm(Query, "Query: a model on a GPU, in an engine, with an environment", _QUERY),
    "observation": InputForm(Observation, "Observation: a query, and what was applied for it", _OBSERVATION),
    "replica-report": InputForm(
        ReplicaReport,
        "Replica report: the body of PUT /v1/deployments/{name}",
        {"groups": [{"layers": "0-35", "observation": _OBSERVATION}], "node": "mi355x-07", "ttl_s": 120},
    ),
    "conformance-report": InputForm(
        ConformanceReport, "Conformance report: the body of PUT /v1/conformance/{aiter_build}", _CONFORMANCE
    ),
}
"""Every input that has a published schema, by name."""


def input_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of an input, its example included."""
    form = INPUT_FORMS[name]
    schema = form.model.model_json_schema()
    head = {"$schema": _DIALECT, "$id": f"urn:preshuffle:schema:{name}"}
    return {**head, **schema, "title": form.title, "examples": [form.example]}
