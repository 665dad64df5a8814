"""Characters that are not seen: escapes on every page, so that no name looks like another."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.pages.markup import page
from support.service.server import OBSERVATION, REPORT, Client


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


UNSEEN = "\u202e\u2066\u200b\u00ad\ufeff\u2028"
"""Characters that turn the direction of what follows, or are not seen."""


def test_characters_that_are_not_seen_are_shown_as_escapes_on_every_page(client: Client) -> None:
    observation = {**OBSERVATION, "query": {**OBSERVATION["query"], "model": f"m{UNSEEN}"}}
    body = {
        "groups": [{"layers": "0", "observation": observation}],
        "node": f"node{UNSEEN}",
        "aiter_build": f"0.1{UNSEEN}",
        "labels": {"team": f"team{UNSEEN}"},
        "owner": f"ann{UNSEEN}",
        "link": "https://example.org/\u202egpj.exe",
    }
    assert client.put("/v1/deployments/prod", json=body).status_code == 201
    silence = {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "note": f"note{UNSEEN}"}
    assert client.put("/v1/deployments/prod/silence", json=silence).status_code == 200
    find = quote(UNSEEN)
    for path in ("/", "/deployments/prod", "/deployments/prod/marks", "/changes"):
        text = page(client, path)
        shown = re.sub(r"<input[^>]*>|<textarea.*?</textarea>", "", text, flags=re.DOTALL)
        assert not set(UNSEEN) & set(shown), path
        assert "\\u202e\\u2066\\u200b\\xad\\ufeff\\u2028" in shown, path
    assert 'href="https://example.org/%E2%80%AEgpj.exe"' in page(client, "/deployments/prod")
    assert f'value="{UNSEEN}"' in page(client, f"/?name={find}")  # what was typed is sent again


def test_letters_of_every_script_and_spaces_of_our_numbers_stay(client: Client) -> None:
    body = {**REPORT, "node": "\u05d0\u0644 \u00e9\u4e2d\U0001f600"}
    client.put("/v1/deployments/prod", json=body)
    text = page(client, "/deployments/prod")
    assert body["node"] in text
    assert "\u202f" in text
