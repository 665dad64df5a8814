"""Quota of stored replicas and bytes: per token and in all, told before anything is stored."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from preshuffle.api.app import create_app
from preshuffle.api.errors import QuotaError
from preshuffle.api.settings import Settings
from preshuffle.api.store import Quota
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry
from support.service.server import REPORT, Client
from support.service.stores import put, report
from support.service.tokens import write_tokens

SIZE = 2000


def names(store: Store) -> list[str]:
    return [deployment.name for deployment in store.page(500)[0]]


def test_replicas_in_all_and_of_one_token(database: str) -> None:
    store = Store(database, Quota(replicas=4, token_replicas=2)).create()
    put(store, "a", 0, owner="one")
    put(store, "a", 1, owner="one")
    with pytest.raises(QuotaError, match="3 replicas of token 'one'; valid: 2 at most"):
        put(store, "b", owner="one")
    put(store, "c", owner="two")
    put(store, "d")
    with pytest.raises(QuotaError, match="5 replicas stored; valid: 4 at most"):
        put(store, "e")
    put(store, "a", 0, report("changed"), owner="one")  # what is there may change
    with pytest.raises(QuotaError, match="'one'"):
        put(store, "c", 0, report("taken over"), owner="one")
    assert names(store) == ["a", "c", "d"]
    assert store.delete("a", 1)
    put(store, "b", owner="one")
    assert store.delete("a")
    assert store.delete("b")
    put(store, "e", owner="one")
    assert names(store) == ["c", "d", "e"]
    store.close()


def test_bytes_in_all_and_of_one_token(database: str) -> None:
    large = report("x" * 256, groups=[{"layers": str(layer), "observation": OBSERVED} for layer in range(8)])
    store = Store(database, Quota(bytes=20 * SIZE, token_bytes=10 * SIZE)).create()

    def fill(prefix: str, *owners: str) -> None:
        for number in range(100):
            put(store, f"{prefix}{number:02}", 0, large, owner=owners[number % len(owners)])

    with pytest.raises(QuotaError, match=r"bytes of reports of token 'one'; valid: 20000"):
        fill("a", "one")
    stored = names(store)
    assert stored
    put(store, stored[0], 0, report(), owner="one")  # what becomes smaller is never refused
    with pytest.raises(QuotaError, match=r"bytes of reports stored; valid: 40000"):
        fill("b", *(f"token-{number}" for number in range(100)))
    store.close()


OBSERVED = REPORT["groups"][0]["observation"]


def test_over_http_it_is_a_problem_and_deleting_helps(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    settings = Settings(db=f"sqlite:///{tmp_path}/store.db", tokens=str(tokens.file), token_replicas=1)
    client = Client(create_app(settings, Registry.default()).state.front)
    headers = {"Authorization": f"Bearer {tokens.report}"}

    def send(name: str) -> httpx.Response:
        return client.put(f"/v1/deployments/{name}", json=REPORT, headers=headers)

    assert send("gpt-1").status_code == 201
    refused = send("gpt-2")
    assert refused.status_code == 507
    assert refused.json()["type"] == "urn:preshuffle:problem:quota-exceeded"
    assert client.put("/v1/deployments/gpt-2", json=REPORT, headers={"Authorization": f"Bearer {tokens.admin}"})
    assert client.delete("/v1/deployments/gpt-1", headers=headers).status_code == 204
    assert send("gpt-3").status_code == 201
