"""Requests made up from the service's own OpenAPI document: none may break it or be answered otherwise than it says."""

import atexit
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry
from support.service.server import REPORT, Client

# Fields are read leniently: numbers may be written as text ("tp": "2"), a switch's value as a number. And some rules
# no schema says: versions are PEP 440, a batch judges its queries one by one, layers may not overlap.
BEYOND_A_SCHEMA: list[CheckFunction] = [positive_data_acceptance, negative_data_rejection]

OPERATIONS = (
    "GET /v1/resolve",
    "POST /v1/resolve",
    "POST /v1/resolve/batch",
    "PATCH /v1/deployments/{name}",
    "PUT /v1/deployments/{name}/silence",
    "DELETE /v1/deployments/{name}/silence",
    "PUT /v1/deployments/{name}/acknowledgement",
    "DELETE /v1/deployments/{name}/acknowledgement",
    "GET /v1/matrix",
    "POST /v1/check",
    "POST /v1/check/batch",
    "GET /v1/deployments/{name}/health",
    "POST /v1/deployments/{name}/heartbeat",
    "GET /v1/deployments/{name}/history",
    "GET /v1/history",
    "POST /v1/plan",
    "GET /v1/registry/books",
    "GET /v1/registry/diff",
    "GET /v1/events",
    "GET /metrics",
    "GET /v1/registry",
    "GET /v1/recipes",
    "GET /v1/layouts",
    "GET /v1/models",
    "GET /v1/archs",
    "GET /v1/kernels",
    "GET /v1/schemas",
    "GET /v1/schemas/{name}",
    "PUT /v1/kernels/tables/{version}",
    "GET /v1/kernels/tables/{version}",
    "PUT /v1/conformance/{aiter_build}",
    "GET /v1/conformance/{aiter_build}",
    "GET /v1/conformance",
    "GET /v1/deployments",
    "PUT /v1/deployments/{name}",
    "GET /v1/deployments/{name}",
    "DELETE /v1/deployments/{name}",
    "GET /healthz",
    "GET /readyz",
)
EXAMPLES = 8 if settings().derandomize else 60  # in soak tests others each time
BUSY_MACHINE_S = 60.0
"""Seconds that an answer may take where other processes share the machine."""

folder = TemporaryDirectory()
atexit.register(folder.cleanup)
store = Store(f"sqlite:///{folder.name}/store.db").create()
app = create_app(Settings(), Registry.default(), store)
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module", autouse=True)
def stored() -> Iterator[None]:
    load_all_checks()
    Client(app).put("/v1/deployments/gpt-oss-prod", json=REPORT)
    yield
    store.close()


def timeout_s(case: schemathesis.Case[Any]) -> float:
    """Return how long a response may take: a stream of events never ends, so it is cut off soon."""
    contents = [response.get("content", {}) for response in case.operation.definition.raw["responses"].values()]
    return 1.0 if any("text/event-stream" in content for content in contents) else BUSY_MACHINE_S


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def keeps_its_word(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(excluded_checks=BEYOND_A_SCHEMA, timeout=timeout_s(case))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_keeps_its_word(operation: str) -> None:
    """Make the cases of one operation here: while collecting, every worker would make those of all of them."""
    method, path = operation.split()
    document = schema.include(method=method, path=path)
    (made,) = get_all_tests(schema=document, test_func=keeps_its_word, settings=None, given_kwargs=None)
    assert isinstance(made, Ok)
    _, test = made.ok()
    test()


def test_the_document_describes_every_operation() -> None:
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert sorted(f"{operation.method.upper()} {operation.path}" for operation in operations) == sorted(OPERATIONS)
