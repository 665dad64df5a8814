"""Reload of files that change under a running service."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.app import create_app, load_registry
from preshuffle.api.routes.kernels import EXAMPLE as TABLE
from preshuffle.api.settings import Settings
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.background import BackgroundLoop
from preshuffle.api.upkeep.recheck import is_due
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError
from support.service.server import OBSERVATION, REPORT, Client

OTHER_RECIPE = """
rules:
  test.other:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, deployment: rolled}
    use: mxfp4.gui16
    because: it is rolled out here first
    evidence: [https://example.org/rollout]
"""
ROLLED = {**REPORT, "groups": [{"layers": "0-35", "observation": {**OBSERVATION}}]}
ROLLED["groups"][0]["observation"]["query"] = {**OBSERVATION["query"], "deployment": "rolled"}


class Service:
    """The service without its thread: a test says when the background loop runs."""

    def __init__(self, database: str, book: Path, *tables: str) -> None:
        settings = Settings(db=database, book=(str(book),), tables=tables)
        self.store = Store(database).create()
        app = create_app(settings, load_registry(settings), self.store)
        self.client = Client(app)
        self.background: BackgroundLoop = app.state.service.background

    def poll(self) -> None:
        """Run background steps until changed files have settled and the re-check has ended."""
        for _ in range(4):
            self.background._slow_at = 0.0
            self.background.step()
            if self.background._checker is not None:
                self.background._checker.join()

    def get(self, path: str) -> Any:
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """An overlay as Kubernetes mounts one: files are links through ..data, which is swapped at once."""
    folder = tmp_path / "book"
    folder.mkdir()
    mount(folder, "models: {}\n")
    (folder / "book.yaml").symlink_to("..data/book.yaml")
    return folder


def mount(folder: Path, text: str) -> None:
    """Swap the content of a mounted folder as Kubernetes does: a new folder, and one rename of a link."""
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / "book.yaml").write_text(text)
    (folder / "..tmp").symlink_to(version.name)
    os.replace(folder / "..tmp", folder / "..data")


@pytest.fixture
def service(database: str, book: Path) -> Iterator[Service]:
    made = Service(database, book)
    made.poll()
    yield made
    made.background.stop()
    made.store.close()


@pytest.mark.parametrize("few", [0, 100])
def test_a_valid_book_is_published_and_deployments_are_rechecked(
    service: Service, book: Path, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preshuffle.api.upkeep.worker_process.FEW", few)  # 0: in another process
    for name in ("a", "b"):
        assert service.client.put(f"/v1/deployments/{name}", json=ROLLED).status_code == 201
    assert service.client.put("/v1/deployments/c", json=REPORT).status_code == 201
    before = service.get("/v1/registry")["digest"]
    mount(book, OTHER_RECIPE)
    service.poll()
    after = service.get("/v1/registry")["digest"]
    assert after != before
    assert not is_due(service.store, service.background._judge)
    states = {one["name"]: one["state"] for one in service.get("/v1/deployments")["deployments"]}
    assert states == {"a": "drifted", "b": "drifted", "c": "ok"}
    drifted = service.get("/v1/deployments?state=drifted,stale&limit=1")
    assert [one["name"] for one in drifted["deployments"]] == ["a"]
    shown = service.get("/v1/deployments/a")
    assert (shown["verdict"], shown["state"]) == ("ok", "drifted")
    assert shown["replicas"][0]["groups"][0]["decision"]["recipe"] == "mxfp4.gui16"
    newest, *older = service.get("/v1/deployments/a/history")["events"]
    assert (newest["who"], newest["action"]) == ("service", "recheck")
    assert (newest["verdict_before"], newest["verdict_after"]) == ("ok", "ok")
    assert (newest["state_before"], newest["state_after"]) == ("ok", "drifted")
    assert newest["registry"].startswith(after)
    assert [event["action"] for event in older] == ["report"]
    assert len(service.get("/v1/deployments/c/history")["events"]) == 1
    books = service.get("/v1/registry/books")
    assert books["current"] == after
    assert {one["digest"] for one in books["books"]} == {before, after}
    changes = service.get(f"/v1/registry/diff?from={before}")["changes"]
    assert [(change["section"], change["id"], change["change"]) for change in changes] == [
        ("rules", "test.other", "added")
    ]
    back = service.get(f"/v1/registry/diff?from=current&to={before}")["changes"]
    assert [change["change"] for change in back] == ["removed"]
    assert service.client.get(f"/v1/registry/diff?from=sha256:{'0' * 64}").status_code == 404
    mount(book, "models: {}\n")
    service.poll()
    assert {one["state"] for one in service.get("/v1/deployments")["deployments"]} == {"ok"}
    assert [event["action"] for event in service.get("/v1/history")["events"]].count("book") == 3


def test_an_invalid_book_leaves_the_last_valid_one(service: Service, book: Path) -> None:
    before = service.get("/readyz")
    assert before["book_problems"] == []
    mount(book, "rules:\n  x: 5\n")
    service.poll()
    after = service.get("/readyz")
    assert after["registry_digest"] == before["registry_digest"]
    (problem,) = after["book_problems"]
    assert problem.startswith(f"{book}/book.yaml:2:")
    assert service.background.watching.book.state.failures == 1
    mount(book, OTHER_RECIPE)
    service.poll()
    mended = service.get("/readyz")
    assert mended["book_problems"] == []
    assert mended["registry_digest"] != before["registry_digest"]
    assert service.background.watching.book.state.reloads == 1


def test_a_file_that_is_being_written_is_not_read(service: Service, book: Path) -> None:
    before = service.get("/readyz")
    (book / "more.yaml").write_text(OTHER_RECIPE[: OTHER_RECIPE.index("because")])  # YAML, and half a rule
    service.background.watching.book.poll()
    (book / "more.yaml").write_text(OTHER_RECIPE)
    service.background.watching.book.poll()
    assert service.get("/readyz") == before
    service.background.watching.book.poll()
    assert service.get("/readyz")["registry_digest"] != before["registry_digest"]
    assert service.background.watching.book.state.failures == 0


def test_a_folder_may_be_empty_and_is_filled_later(database: str, tmp_path: Path) -> None:
    """A ConfigMap that is optional, mounted before anybody made it."""
    folder = tmp_path / "mounted"
    (folder / "..v0").mkdir(parents=True)
    (folder / "..data").symlink_to("..v0")
    service = Service(database, folder)
    service.poll()
    before = service.get("/readyz")
    assert before["book_problems"] == []
    assert before["registry_digest"] == Registry.default().digest
    (folder / "..v1").mkdir()
    (folder / "..v1" / "book.yaml").write_text(OTHER_RECIPE)
    (folder / "book.yaml").symlink_to("..data/book.yaml")
    (folder / "..data").unlink()
    (folder / "..data").symlink_to("..v1")
    service.poll()
    assert service.get("/readyz")["registry_digest"] != before["registry_digest"]
    (folder / "book.yaml").unlink()
    service.poll()
    assert service.get("/readyz") == before
    (folder / "notes.txt").write_text("no book")
    with pytest.raises(BookError, match=r"no .\.yaml in this folder"):
        load_registry(Settings(book=(str(folder),)))
    service.background.stop()
    service.store.close()


def test_a_deleted_folder_is_reported_as_a_problem(service: Service, book: Path) -> None:
    shutil.rmtree(book)
    service.poll()
    assert "no such file or folder" in service.get("/readyz")["book_problems"][0]


@pytest.mark.parametrize("version", ["", "@0.1.20"])
def test_kernel_tables_are_reloaded_too(database: str, book: Path, tmp_path: Path, version: str) -> None:
    folder = tmp_path / "configs"
    (folder / "model_configs").mkdir(parents=True)
    (folder / "tuned_fmoe.csv").write_text(TABLE)
    service = Service(database, book, f"{folder}{version}")
    service.poll()
    assert service.client.put("/v1/deployments/d", json=REPORT).status_code == 201
    before = service.get("/v1/kernels")
    assert [(one["version"], one["rows"]) for one in before["tables"]] == [(version[1:] or None, 1)]

    more = folder / "model_configs" / "x_tuned_fmoe.csv"
    more.write_text(TABLE.replace(",64,7168,", ",128,7168,"))
    service.poll()
    after = service.get("/v1/kernels")
    assert [one["rows"] for one in after["tables"]] == [2]
    assert after["tables_digest"] != before["tables_digest"]
    assert not is_due(service.store, service.background._judge)
    assert after["tables_digest"] in service.background._judge

    more.write_text("no,table\n1,2\n")
    service.poll()
    (problem,) = service.get("/readyz")["table_problems"]
    assert problem.startswith("model_configs/x_tuned_fmoe.csv:1:")
    assert service.get("/v1/kernels") == after
    metrics = service.client.get("/metrics").text
    assert "preshuffle_tables_loads 0.0" in metrics
    assert "preshuffle_tables_reloads_total 1.0" in metrics
    assert "preshuffle_tables_reload_failures_total 1.0" in metrics
    assert "preshuffle_registry_loads 1.0" in metrics
    page = service.client.get("/").text
    assert "The files of kernel tables do not load" in page
    assert "<code>model_configs/x_tuned_fmoe.csv:1</code>" in page

    more.unlink()
    service.poll()
    assert service.get("/readyz")["table_problems"] == []
    assert service.get("/v1/kernels") == before
    service.background.stop()
    service.store.close()


def test_verdicts_agree_after_a_reload_or_are_being_checked_again(service: Service, book: Path) -> None:
    """The list shows stored verdicts, one deployment and its health current ones; each says which."""

    def shown() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        (listed,) = service.get("/v1/deployments")["deployments"]
        return listed, service.get("/v1/deployments/a"), service.get("/v1/deployments/a/health")

    assert service.client.put("/v1/deployments/a", json=ROLLED).status_code == 201
    views = shown()
    assert [view["verdict_source"] for view in views] == ["stored", "current", "current"]
    assert [(view["state"], view["rechecking"]) for view in views] == [("ok", False)] * 3
    assert "being checked again" not in service.client.get("/").text

    service.background.watching.book.poll()
    mount(book, OTHER_RECIPE)
    while not service.background.watching.book.poll():
        pass  # the new book answers, and nothing has been checked again
    views = shown()
    assert [view["state"] for view in views] == ["ok", "drifted", "drifted"]
    assert [view["rechecking"] for view in views] == [True] * 3
    for page in ("/", "/deployments/a"):
        assert "being checked again" in service.client.get(page).text

    service.poll()
    assert [(view["state"], view["rechecking"]) for view in shown()] == [("drifted", False)] * 3
    for page in ("/", "/deployments/a"):
        assert "being checked again" not in service.client.get(page).text
