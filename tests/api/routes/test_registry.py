"""The registry's listings: complete, tagged with the digest, and not sent twice."""

from pathlib import Path

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.service.server import Client

LISTINGS = ("/v1/registry", "/v1/recipes", "/v1/layouts", "/v1/models", "/v1/archs")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


@pytest.mark.parametrize("path", LISTINGS)
def test_a_listing_is_tagged_with_the_digest_and_sent_once(client: Client, path: str) -> None:
    response = client.get(path)
    tag = f'"{Registry.default().digest}"'
    assert (response.status_code, response.headers["etag"]) == (200, tag)
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    head = client.request("HEAD", path)
    assert (head.status_code, head.headers["etag"]) == (200, tag)
    assert client.request("OPTIONS", path).headers["allow"] == "GET, HEAD"


def test_the_listings_hold_the_whole_book(client: Client) -> None:
    book = Registry.default().book
    recipes = client.get("/v1/recipes").json()
    assert recipes["registry_digest"] == book.digest
    assert [recipe["id"] for recipe in recipes["recipes"]] == list(book.recipes)
    layouts = {layout["id"]: layout for layout in client.get("/v1/layouts").json()["layouts"]}
    assert set(layouts) == set(book.layouts)
    assert (layouts["sep16"]["gate_mode"], layouts["gui16"]["gate_mode"]) == ("separated", "interleave")
    assert [model["id"] for model in client.get("/v1/models").json()["models"]] == list(book.models)
    assert [arch["id"] for arch in client.get("/v1/archs").json()["archs"]] == list(book.archs)
    registry = client.get("/v1/registry").json()
    assert (registry["digest"], registry["kernel_tables"]) == (book.digest, None)
    assert registry["counts"]["recipes"] == len(book.recipes)


def test_another_book_is_another_tag(tmp_path: Path) -> None:
    overlay = tmp_path / "more.yaml"
    overlay.write_text(
        "layouts:\n  mine:\n    title: mine\n    pattern: 'e (nt n4) k -> e nt k n4'\n    evidence: [https://example.org]\n"
    )
    registry = Registry.load([overlay])
    client = Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), registry))
    stale = client.get("/v1/layouts", headers={"If-None-Match": f'"{Registry.default().digest}"'})
    assert stale.status_code == 200
    assert "mine" in {layout["id"] for layout in stale.json()["layouts"]}
    assert str(overlay) in client.get("/v1/registry").json()["sources"]


def test_the_document_describes_the_listings(client: Client) -> None:
    document = client.get("/openapi.json").json()
    for path in LISTINGS:
        answers = document["paths"][path]["get"]["responses"]
        assert "$ref" in answers["200"]["content"]["application/json"]["schema"]
        assert "304" in answers
