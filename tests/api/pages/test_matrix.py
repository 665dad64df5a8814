"""The matrix page: every cell with its verdict in words, linked to a decision that can be launched and copied."""

from __future__ import annotations

import html
import re
import shlex

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Query, Registry
from preshuffle.registry.launch import launch_of
from support.pages.markup import page
from support.service.server import Client

ATOM = "/matrix?engine=atom&tp=8"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    store = tmp_path_factory.mktemp("store") / "store.db"
    return Client(create_app(Settings(db=f"sqlite:///{store}"), Registry.default()))


def rows(text: str) -> dict[str, str]:
    """Return the table's rows by model."""
    found = re.findall(r'<th scope="row"><a href="/book/models/[^"]+">([^<]+)</a>(.*?)</tr>', text, re.DOTALL)
    return dict(found)


def to_copy(text: str) -> list[str]:
    """Return the texts that have a button to copy them."""
    return [html.unescape(block) for block in re.findall(r"<pre[^>]* data-copy.*?<code>(.*?)</code>", text, re.DOTALL)]


def test_it_is_in_the_navigation(client: Client) -> None:
    assert '<a href="/matrix" aria-current="page">Matrix</a>' in page(client, f"{ATOM}&model=gpt-oss")
    assert '<a href="/matrix">Matrix</a>' in page(client, "/")


def test_every_model_has_a_row_and_every_gpu_a_place(client: Client) -> None:
    text, book = page(client, ATOM), Registry.default().book
    assert list(rows(text)) == list(book.models)
    for arch in book.archs.values():
        assert arch.id in text
        assert all(product in text for product in arch.products)
    assert "whether kernels are tuned is not known" in text
    assert "not tuned" not in text


def test_what_is_refused_says_why_and_is_not_told_by_colour_alone(client: Client) -> None:
    row = rows(page(client, f"{ATOM}&arch=gfx942"))["openai/gpt-oss-120b"]
    assert "refused</span>" in row
    assert "on gfx942 ATOM takes its Triton path by itself" in row
    assert row.count("<td") == 1  # the three kinds of gfx942 say the same
    assert 'colspan="3"' in row


def test_a_gpu_without_a_recipe_is_below_the_table_or_in_it_where_wanted(client: Client) -> None:
    below = page(client, f"{ATOM}&model=GLM-5.3")
    assert "GPUs on which none of these models resolves" in below
    wanted = page(client, f"{ATOM}&model=GLM-5.3&arch=MI210")
    assert "none of these models resolves" not in wanted
    assert "refused</span>" in rows(wanted)["zai-org/GLM-5.3"]


def test_a_cell_leads_to_its_decision(client: Client) -> None:
    row = rows(page(client, f"{ATOM}&arch=MI308X"))["deepseek-ai/DeepSeek-R1-0528"]
    (link,) = re.findall(r'<td><a href="([^"]+)">', row)
    path, _, place = html.unescape(link).partition("#")
    decision = page(client, path)
    assert f'id="{place}"' in decision
    assert to_copy(decision)[0].startswith("python -m atom.entrypoints.openai_server --model deepseek-ai/")


def test_a_decision_has_its_command_line_environment_and_call_to_copy(client: Client) -> None:
    query = Query(model="deepseek-ai/DeepSeek-R1-0528", arch="MI300X", engine="vllm@0.33.0", tp=8)
    text = page(client, f"/resolve?model={query.model}&arch=MI300X&engine=vllm@0.33.0&tp=8")
    registry = Registry.default()
    launch = launch_of(query, registry.resolve(query), registry.book)
    assert to_copy(text) == [launch.line, launch.exports, launch.call]
    assert shlex.split(to_copy(text)[0])[:3] == ["VLLM_ROCM_USE_AITER=1", "vllm", "serve"]


def test_without_an_engine_there_is_only_environment_and_call(client: Client) -> None:
    text = page(client, "/resolve?model=openai/gpt-oss-120b&arch=gfx950")
    assert "No command line: the query names no engine." in text
    assert re.findall(r'data-copy="(\w+)"', text) == ["environment", "call"]


def test_what_is_wrong_is_said_beside_its_field(client: Client) -> None:
    text = client.get("/matrix?engine=vlm&tp=3", headers={"Accept": "text/html"})
    assert text.status_code == 422
    assert 'name="engine" value="vlm"' in text.text
    assert "did you mean vllm?" in text.text
    assert "<option selected>3</option>" in text.text
    assert "No model of the book has this in its id" in page(client, f"{ATOM}&model=no-such-model")
