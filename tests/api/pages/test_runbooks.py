"""Runbooks: a page for every finding code and state, made of the registry's own table, offline."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import get_args

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.fleet.states import STATES
from preshuffle.api.pages.runbooks import runbooks
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from preshuffle.registry.check import describe_code
from preshuffle.registry.values.finding import FindingCode
from support.pages import markup
from support.service.server import Client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder: Path = tmp_path_factory.mktemp("store")
    return Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), Registry.default()).state.front)


def words(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page)).replace("\n", " ")


def test_every_code_and_every_state_but_ok_has_one() -> None:
    assert set(get_args(FindingCode)) | (set(STATES) - {"ok"}) <= set(runbooks())


def test_each_page_says_what_why_and_what_to_do_and_needs_no_other_host(client: Client) -> None:
    index = client.get("/docs/runbooks").text
    for name, runbook in runbooks().items():
        assert f'href="/docs/runbooks/{name}"' in index
        page = markup.page(client, f"/docs/runbooks/{name}")

        text = words(page)
        for part in (runbook.says, runbook.why, *runbook.steps):
            assert part.replace("``", "") in text, name
        assert not re.search(r'(src|rel="stylesheet" href)="https?:', page)
    for code in get_args(FindingCode):
        assert describe_code(code).mend.replace("``", "") in words(client.get(f"/docs/runbooks/{code}").text)


def test_an_unknown_one_gets_the_nearest(client: Client) -> None:
    answer = client.get("/docs/runbooks/layout_mismtach", headers={"Accept": "application/json"})
    assert answer.status_code == 404
    assert "did you mean layout_mismatch" in html.unescape(answer.text)
