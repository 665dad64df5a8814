"""The pages that ask: resolve, the book and a plan; mistakes are shown where they were made, as text."""

import re
from pathlib import Path

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Query, Registry
from support.pages.markup import check, page
from support.service.server import REPORT, Client
from support.service.tokens import write_tokens

HOSTILE = "<script>alert(1)</script>'\"&"
ASK = "/resolve?model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2&tp=2"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
OVERLAY = """
rules:
  acme.first:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, tp: 2, engine: null}
    use: mxfp4.gui16
    because: it goes first <b>
    evidence: [https://intranet.example/first]
"""


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Return a client of what a server runs: the front checks who sends a request."""
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()).state.front)


def test_the_form_has_every_field_of_a_query_and_asks_nothing_yet(client: Client) -> None:
    text = page(client, "/resolve")
    assert set(re.findall(r'name="(\w+)"', text)) >= set(Query.model_fields)
    assert 'id="answer"' not in text
    assert 'role="alert"' not in text


def test_an_answer_shows_decision_kernels_pictures_and_every_rule(client: Client) -> None:
    text = page(client, f"{ASK}&env=A%3D1%0D%0AB%3D2&hidden_size=")
    decision = Registry.default().resolve(
        Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2)
    )
    for shown in (decision.recipe, decision.rule, decision.reason, decision.decision_digest, "A=1\nB=2"):
        assert shown in text
    assert 'id="s0-kernels"' in text
    assert 'id="s0-w13_weight-memory"' in text
    assert text.count('href="/book/rules/') >= len(Registry.default().book.rules)
    assert "<option selected>fp4x2</option>" in text


def test_mistakes_stand_at_their_field(client: Client) -> None:
    text = page(client, "/resolve?model=m&arch=foo&tp=0&tokens=1,x", 422)
    for name in ("arch", "tp", "tokens"):
        assert f'id="{name}-wrong"' in text
        assert f'<a href="#{name}">' in text
    assert 'id="env-wrong"' in page(client, "/resolve?model=m&arch=gfx950&env=A", 422)
    assert "nothing: unknown parameter" in page(client, "/resolve?nothing=1", 422)
    assert 'id="model-wrong"' not in text
    assert 'value="foo"' in text


def test_no_recipe_is_an_answer_too(client: Client) -> None:
    text = page(client, "/resolve?model=m&arch=gfx942")
    assert "No recipe answers this query" in text
    assert "Nearest rules" in text
    assert "No rule matches" in text


def test_what_is_typed_stays_text(client: Client) -> None:
    for path in ("/resolve", "/book/rules", "/", "/plan"):
        for name in ("model", "name", "book"):
            response = client.get(path, params={name: HOSTILE, "arch": "gfx950"}, headers={"Accept": "text/html"})
            check(response.text)
            assert "<script>alert" not in response.text, (path, name)


@pytest.mark.parametrize("section", ["layouts", "recipes", "rules", "models", "known_bad"])
def test_the_book_shows_entries_as_they_were_written(client: Client, section: str) -> None:
    entries = Registry.default().book.entries[section]
    text = page(client, f"/book/{section}")
    assert text.count(f'href="/book/{section}/') == len(entries)
    id, entry = next(iter(entries.items()))
    shown = page(client, f"/book/{section}/{id}")
    assert f"{id}:" in shown
    assert f"book/{Registry.default().book.places[section, id].document.name.removeprefix('book/')}:" in shown
    for url in entry.evidence:
        assert url in shown


def test_a_layout_is_drawn_and_names_are_linked_both_ways(client: Client) -> None:
    text = page(client, "/book/layouts/gui16")
    assert "Gate and up alternate every" in text
    assert 'href="/book/recipes/mxfp4.gui16"' in text
    assert 'href="/book/layouts/gui16"' in page(client, "/book/recipes/mxfp4.gui16")
    for layout in Registry.default().book.layouts:
        assert "Cannot be drawn" not in page(client, f"/book/layouts/{layout}")


def test_a_section_is_searched_and_what_is_not_there_is_said(client: Client) -> None:
    text = page(client, "/book/rules?name=GPT-OSS.a4w4")
    assert "gpt-oss.a4w4.gfx950" in text
    assert "atom.mega.gfx942" not in text
    assert "No entry matches." in page(client, "/book/rules?name=nowhere")
    assert "valid: layouts" in page(client, "/book/nothing", 404)
    assert "has no &#39;nothing&#39;" in page(client, "/book/rules/nothing", 404)
    assert "No differences." in page(client, "/book/diff?from=current")
    assert "No book of this digest" in page(client, f"/book/diff?from=sha256:{'0' * 64}", 404)


def test_a_plan_shows_what_would_change_and_whether_to_load_again(client: Client) -> None:
    client.put("/v1/deployments/prod", json=REPORT)
    response = client.post("/plan", data={"book": OVERLAY, "aiter": "", "deployments": ""}, headers=FORM)
    assert response.status_code == 200, response.text
    text = response.text
    check(text)
    assert "0 worse, 0 better, 1 the same" in text
    assert "1 of 1 deployments would change; 1 must restart" in text
    for shown in ("restart needed", "mxfp4.sep16", "mxfp4.gui16", 'href="/deployments/prod"', "acme.first"):
        assert shown in text
    assert "it goes first &lt;b&gt;" in text
    assert "tensors.w13_weight.layout" in text


def test_a_plan_that_cannot_be_read_is_said_in_place(client: Client) -> None:
    wrong = client.post("/plan", data={"book": "rules:\n  a: {use: nothing}\n<b>"}, headers=FORM)
    check(wrong.text)
    assert wrong.status_code == 422
    assert re.search(r"overlay\.yaml:\d+:\d+", wrong.text)
    assert "&lt;b&gt;</textarea>" in wrong.text
    empty = client.post("/plan", data={"book": " "}, headers=FORM)
    assert (empty.status_code, "nothing would change" in empty.text) == (422, True)
    version = client.post("/plan", data={"aiter": "newest"}, headers=FORM)
    assert (version.status_code, "<code>aiter</code>" in version.text) == (422, True)


def test_a_plan_is_not_asked_for_by_other_sites_or_in_other_forms(client: Client) -> None:
    elsewhere = client.post("/plan", data={"aiter": "0.1.20"}, headers={**FORM, "Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status_code == 403
    assert client.post("/plan", json={"aiter": "0.1.20"}).status_code == 415
    assert client.post("/plan", content=b"x" * (2 << 20), headers=FORM).status_code == 413
    assert client.post("/plan", content=b"aiter=%FF", headers=FORM).status_code == 422


def test_a_book_that_does_not_load_is_on_every_page_with_its_line(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("rules: {}\n")
    registry = Registry.load([overlay])
    app = create_app(Settings(db=f"sqlite:///{tmp_path}/store.db", book=(str(overlay),)), registry)
    client, watcher = Client(app), app.state.service.background.watching.book
    overlay.write_text("rules:\n  acme.<b>:\n    use: nothing\n")
    while not watcher.poll():
        pass
    for path in ("/", "/book", "/resolve", "/nowhere"):
        text = page(client, path, 404 if path == "/nowhere" else 200)
        assert f"<code>{overlay}:2</code>" in text or f"<code>{overlay}:3</code>" in text
        assert "the last valid book stays in use" in text
    overlay.write_text("rules: {}\n# mended\n")
    while not watcher.poll():
        pass
    assert "do not load" not in page(client, "/")


def test_where_reading_needs_a_token_the_pages_do_too_and_a_browser_can_send_it(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    settings = Settings(db=f"sqlite:///{tmp_path}/store.db", tokens=str(tokens.file), reads="closed")
    client = Client(create_app(settings, Registry.default()).state.front)
    for path in ("/", "/changes", "/resolve", "/plan", "/book", "/deployments/prod"):
        refused = client.get(path, headers={"Accept": "text/html"})
        assert refused.status_code == 401, path
        assert "Basic" in refused.headers["www-authenticate"]
        assert client.get(path, auth=("me", tokens.report)).status_code in (200, 404), path
    assert client.get("/static/page.css").status_code == 200
    assert client.post("/plan", data={"aiter": "0.1.20"}, headers=FORM).status_code == 401
    for token, code in ((tokens.report, 403), (tokens.admin, 200)):  # a plan is an operator's deed
        asked = client.post("/plan", data={"aiter": "0.1.20"}, headers=FORM, auth=("me", token))
        assert asked.status_code == code


def test_the_readme_shows_pictures_that_are_there_and_small() -> None:
    root = Path(__file__).parents[3]
    shown = re.findall(r"!\[([^\]]+)\]\((docs/images/[^)]+)\)", (root / "README.md").read_text())
    assert {path for _, path in shown} == {f"docs/images/{file.name}" for file in (root / "docs/images").iterdir()}
    for words, path in shown:
        assert len(words) > 20
        assert (root / path).read_bytes().startswith(b"\x89PNG" if path.endswith(".png") else b"<svg ")
        assert (root / path).stat().st_size < 200_000
