"""The page: what it shows, that it asks for nothing from elsewhere, and that nothing told becomes markup."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Query, Registry
from support.pages.markup import check, page
from support.service.server import OBSERVATION, REPORT, Client

HOSTILE = "<script>alert(1)</script>'\"&"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


def put(client: Client, name: str, **observation: Any) -> None:
    body = {"groups": [{"layers": "0-35", "observation": {**OBSERVATION, **observation}}]}
    assert client.put(f"/v1/deployments/{name}", json=body).status_code in (200, 201)


def test_without_deployments_it_tells_how_to_put_one(client: Client) -> None:
    text = page(client, "/")
    assert "No deployments yet" in text
    assert "curl -X PUT" in text
    assert "http://service/v1/deployments/my-deployment" in text


def test_the_list_shows_what_is_decided_and_what_was_applied(client: Client) -> None:
    put(client, "right")
    put(client, "wrong", applied={"tensors": {"w13_weight": {"layout": "gui16"}}})
    put(client, "silent", applied={})
    put(client, "odd", applied={"tensors": {"w13_weight": {"layout": "no-such"}}})
    put(client, "nobody", query={"model": "m", "arch": "gfx942"})
    rows = dict(re.findall(r'<tbody>.*?href="/deployments/(\w+)"(.*?)</tbody>', page(client, "/"), re.DOTALL))
    assert {name: re.findall(r'class="state(?: \w+)?">([^<]+)<', row) for name, row in rows.items()} == {
        "right": ["same bytes"],
        "wrong": ["other bytes than decided"],
        "silent": ["unknown"],
        "odd": ["not a layout of this registry"],
        "nobody": ["no recipe", "nothing decided"],
    }
    assert "mxfp4.sep16" in rows["right"]


def test_the_list_comes_in_pages(client: Client) -> None:
    for index in range(5):
        put(client, f"d{index}")
    first = page(client, "/?limit=3")
    (further,) = re.findall(r'href="([^"]+)">Next page<', first)
    second = page(client, html.unescape(further))
    assert re.findall(r'rowspan="1"><a id="[^"]+" href="/deployments/(d\d)"', first + second) == [
        "d0",
        "d1",
        "d2",
        "d3",
        "d4",
    ]
    assert client.get("/?cursor=!").status_code == 422
    assert "The input is not valid" in page(client, "/?cursor=!", 422)


def test_a_deployment_shows_decision_reason_alternatives_kernels_and_pictures(client: Client) -> None:
    client.put("/v1/deployments/prod", json=REPORT)
    decision = Registry.default().resolve(Query.parse(OBSERVATION["query"]))
    text = page(client, "/deployments/prod")
    for shown in (decision.recipe, decision.rule, decision.alternatives[0].recipe, decision.decision_digest):
        assert shown in text
    assert html.escape(decision.reason) in text
    assert f">{decision.reason_kind}</span>" in text
    assert html.escape(decision.alternatives[0].why_not) in text
    for role, tensor in decision.tensors.items():
        assert role in text
        assert " × ".join(map(str, tensor.physical_shape)) in text
    for bucket in decision.kernels:
        assert bucket.stage1 is not None
        assert (bucket.stage1.kernel or bucket.stage1.func) in text
    assert re.findall(r'<details class="drawing" id="([^"]+)"', text) == [f"s0-{role}" for role in decision.tensors]
    assert "gate rows 0–15 at byte 0, 16, … 240" in text  # row 3 at 48; bytes 16–31 of it at 304
    assert "bytes 0–63, 16 at a time: + 0, 256, 512, 768" in text


def test_the_page_of_one_group_is_small(client: Client) -> None:
    client.put("/v1/deployments/prod", json=REPORT)
    assert len(page(client, "/deployments/prod").encode()) <= 60_000


def test_other_bytes_are_drawn_beside_those_decided(client: Client) -> None:
    put(client, "prod", applied={"tensors": {"w13_weight": {"layout": "gui16", "physical_shape": [128, 64, 3072]}}})
    text = page(client, "/deployments/prod")
    assert 'id="s0-w13_weight-applied"' in text
    assert "Gate and up alternate every 24\u202f576 bytes (16 rows)" in text
    assert "shape 128 × 64 × 3072" in text


def test_groups_that_are_alike_are_shown_and_drawn_once(client: Client) -> None:
    for replica in range(3):
        client.put(f"/v1/deployments/prod?replica={replica}", json=REPORT)
    groups = [{"layers": layers, "observation": OBSERVATION} for layers in ("0-2", "3-35")]
    client.put("/v1/deployments/prod?replica=3", json={"groups": groups})
    text = page(client, "/deployments/prod")
    assert re.findall(r"<h2[^>]*>(Layers [^<]+?)\s*<", text) == ["Layers 0-35", "Layers 0-2", "Layers 3-35"]
    assert text.count('class="drawing"') == 6


def test_no_recipe_is_explained_on_the_page(client: Client) -> None:
    put(client, "prod", query={"model": "m", "arch": "gfx942"})
    text = page(client, "/deployments/prod")
    assert "No recipe answers this query" in text
    told = client.get("/v1/deployments/prod").json()["replicas"][0]["groups"][0]["problem"]
    for near in told["nearest"]:
        assert f"<code>{near['rule']}</code>" in text


def test_nothing_told_becomes_markup(client: Client) -> None:
    query = {"model": HOSTILE, "arch": "gfx950", "engine": HOSTILE, "env": {HOSTILE: HOSTILE}}
    observation = {"query": query, "applied": {"tensors": {"w13_weight": {"layout": HOSTILE}}}}
    body = {"groups": [{"layers": "0", "observation": observation}], "node": HOSTILE, "aiter_build": HOSTILE}
    assert client.put("/v1/deployments/prod", json=body).status_code == 201
    again = {"groups": [{"layers": "0", "observation": {**observation, "applied": {}}}], "node": "plain"}
    assert client.put("/v1/deployments/prod", json=again).status_code == 200
    assert client.put("/v1/deployments/prod", json=body).status_code == 200
    for path in ("/", "/deployments/prod", "/changes", "/deployments/prod/changes"):
        text = page(client, path)
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_a_browser_gets_a_page_where_there_is_no_deployment(client: Client) -> None:
    assert "no deployment is called &#39;absent&#39;" in page(client, "/deployments/absent", 404)
    assert "This path does not exist" in page(client, "/no/such/path", 404)
    other = client.get("/deployments/absent")
    assert other.headers["content-type"] == "application/problem+json"


def test_the_reference_describes_every_operation_offline(client: Client) -> None:
    text = page(client, "/docs")
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f'<b class="method">{method.upper()}</b> {path}</code></h2>' in text
    for name in ("Query", "Decision", "Problem", "ReplicaReport", "DeploymentView"):
        assert f'id="type-{name}"' in text


def test_the_page_of_a_layout_lists_the_kernel_families_that_read_it(client: Client) -> None:
    text = page(client, "/book/layouts/e8")
    rows = re.findall(r'href="/book/kernel_families/([^"]+)".*?<td>(.*?)</td><td>(.*?)</td>', text)
    assert ("ck_gemm1", "1", "w13_weight_scale") in rows
    assert ("ck_gemm2", "2", "w2_weight_scale") in rows
    assert "No kernel family of the book reads it" in page(client, "/book/layouts/i4_scale_pairs")
    assert "ck_gemm1" in page(client, "/book/packings/sep16_int4_uint32")
    assert "Kernel families that read it" not in page(client, "/book/recipes/mxfp4.sep16")


def test_findings_come_with_their_fix_before_everything_else(client: Client) -> None:
    put(client, "wrong", applied={"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}})
    text = page(client, "/deployments/wrong")
    shown = ("layout_mismatch", "<b>Do this:</b>", "Recipe</span>", ">Kernels<", ">Why<")
    places = [text.index(words) for words in shown]
    assert places == sorted(places)


def test_the_call_shows_what_was_reported_of_the_experts(client: Client) -> None:
    put(client, "masked", applied={"expert_map": "mask", "mask_ones": [16, 17], "router_weight": "output"})
    text = page(client, "/deployments/masked")
    for shown in ("mask_ones", "16, 17", "router_weight", "doweight_stage1"):
        assert shown in text, shown
    assert "dummy_slots" not in text


def test_the_explanation_names_the_rule_and_why_the_nearest_others_lost(client: Client) -> None:
    put(client, "prod")
    text = page(client, "/deployments/prod")
    why = text[text.index(">Why<") :]
    assert "is more specific" in why
    assert "does not match" in why
    (link,) = re.findall(r'href="(/resolve\?[^"]+)"', why)
    whole = page(client, html.unescape(link))
    assert whole.count(">does not match<") > why.count(">does not match<")


def test_what_changed_is_told_with_state_and_fields_before_and_after(client: Client) -> None:
    put(client, "prod")
    put(client, "prod", applied={"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}})
    for path in ("/", "/changes", "/changes?hours=24", "/deployments/prod", "/deployments/prod/changes"):
        text = page(client, path)
        shift = re.search(r'class="state-change">.*?</span>\s*</p>', text, re.DOTALL)
        assert shift, path
        assert re.findall(r'class="verdict (\w+)"', shift.group()) == ["ok", "mismatch"]
        assert "groups.0.observation.applied.tensors.w13_weight.layout" in text
        assert "<code>gui16</code>" in text
    client.delete("/v1/deployments/prod")
    assert "was removed" in page(client, "/deployments/prod/changes")


def test_a_page_that_is_out_of_date_says_so_only_to_whoever_saw_the_old_one(client: Client) -> None:
    put(client, "prod")
    (seen,) = re.findall(r'hx-get="/deployments/prod\?seen=([^"]+)"', page(client, "/deployments/prod"))
    assert "has changed since" not in page(client, f"/deployments/prod?seen={seen}")
    put(client, "prod", applied={})
    assert "has changed since" in page(client, f"/deployments/prod?seen={seen}")
    assert "has changed since" not in page(client, "/deployments/prod")


def test_what_follows_the_service_is_small(client: Client) -> None:
    put(client, "prod")
    brief = client.get("/deployments/prod?seen=1-x", headers={"HX-Request": "true"}).text
    assert len(brief) < 20_000
    for part in ('id="live"', 'id="events"', 'id="book-state"', "has changed since"):
        assert part in brief


def parts_of(target: str) -> set[str]:
    """Return what one visit of a link tests: its page, each of its parameters, and which are there together."""
    path, _, asked = target.partition("#")[0].partition("?")
    if kind := re.match(r"/book/\w+/|/resolve$", path):  # of these, one of a kind
        return {kind.group()}
    told = asked.split("&")
    names = sorted(word.partition("=")[0] for word in told)
    return {path, f"{path}?{names}", *(f"{path}?{word}" for word in told)}


def test_every_link_leads_somewhere(client: Client) -> None:
    put(client, "right")
    put(client, "nobody", query={"model": "m", "arch": "gfx942"})
    waiting, seen = ["/"], parts_of("/")
    while waiting:
        path = waiting.pop()
        response = client.get(path, headers={"Accept": "text/html"})
        assert response.status_code == 200, path
        if not response.headers["content-type"].startswith("text/html"):
            continue
        markup = check(response.text)
        for target in {*markup.links, *markup.loads}:
            if target.startswith("/") and "{" not in target:
                if not parts_of(target) <= seen:
                    seen |= parts_of(target)
                    waiting.append(target.partition("#")[0])
            else:
                assert target.startswith(("/", "#", "https://")), target
    assert {"/changes", "/resolve", "/plan", "/book", "/book/rules", "/book/layouts/", "/docs"} <= seen


def test_a_query_can_be_asked_again_as_it_was_told(client: Client) -> None:
    query = {
        **OBSERVATION["query"],
        "engine": "vllm@0.20.0",
        "env": {"AITER_MOE_A": "1", "AITER_MOE_B": "x=y&z"},
        "tokens": [1, 64],
    }
    put(client, "prod", query=query)
    (link,) = re.findall(r'href="(/resolve\?[^"]+)">Resolve this query', page(client, "/deployments/prod"))
    text = page(client, html.unescape(link))
    for value in (
        'value="vllm@0.20.0"',
        "AITER_MOE_A=1\nAITER_MOE_B=x=y&amp;z</textarea>",
        'value="1,64"',
        'value="2"',
    ):
        assert value in text


def test_many_groups_are_one_page_soon_enough(client: Client) -> None:
    groups = [
        {"layers": str(layer), "observation": {**OBSERVATION, "query": {**OBSERVATION["query"], "tokens": [layer + 1]}}}
        for layer in range(48)
    ]
    assert client.put("/v1/deployments/prod", json={"groups": groups}).status_code == 201
    text = page(client, "/deployments/prod")
    assert text.count("<h3>Why</h3>") == 12
    assert text.count("Resolve this query, with every rule") == 48
    assert text.count('class="drawing"') == 6


def card(text: str) -> str:
    """Return the card at the top of a deployment's page that says what is wrong."""
    found = re.search(r'<section class="card" id="wrong".*?</section>', text, re.DOTALL)
    assert found
    return found.group()


WRONG = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}


def test_the_page_begins_with_where_it_is_wrong_and_what_to_do(client: Client) -> None:
    put(client, "prod")
    assert 'id="wrong"' not in page(client, "/deployments/prod")
    for replica, node in ((1, "node-b"), (2, "node-c")):
        groups = [{"layers": "0-35", "observation": {**OBSERVATION, "applied": WRONG}}]
        body = {**REPORT, "node": node, "groups": groups}
        assert client.put(f"/v1/deployments/prod?replica={replica}", json=body).status_code in (200, 201)
    text = page(client, "/deployments/prod")
    top = card(text)
    for shown in ("replicas", "1–2", "node-b, node-c", "layers 0-35", "w13_weight", "layout_mismatch", "since", "#s0"):
        assert shown in top, shown
    assert text.index('id="wrong"') < text.index('id="s0"')
    (fix,) = re.findall(r'<p class="fix"><b>Do this:</b> (.*?)</p>', top)
    assert text.count(fix) == 1
    replicas = re.search(r"<dt>Replicas</dt>.*?</dd>", text, re.DOTALL)
    assert replicas
    assert re.findall(r'class="verdict (\w+)"', replicas.group()) == ["mismatch", "mismatch", "ok"]


def test_the_chart_shows_the_call_as_observed_and_the_decided_one_where_it_differs(client: Client) -> None:
    put(client, "right", applied={"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "sep16"}}})
    put(client, "other", applied={"gate_mode": "interleave", "tensors": {"w13_weight": {"layout": "gui16"}}})
    put(client, "nothing", applied={})
    right, other, nothing = (page(client, f"/deployments/{name}") for name in ("right", "other", "nothing"))
    assert "the decided call gets the same" in right
    assert right.count("-kernels") == 1
    assert other.index("As observed:") < other.index("As decided:")
    assert "As observed:" not in nothing
    assert "As decided:" in nothing


def test_colours_follow_the_verdict_alone(client: Client) -> None:
    put(client, "other", applied={"tensors": {"w13_weight": {"layout": "gui16"}}})
    text = page(client, "/")
    assert '<span class="state">other bytes than decided</span>' in text
