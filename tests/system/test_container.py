"""The images of service and loader, built and run for real. Minutes long: `make soak` runs it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from support.service.container import LOADER_BASE, LOADER_IMAGE, Builder, Image, missing, missing_for_loader
from support.service.server import REPORT
from support.service.tokens import write_tokens
from support.tensors.laid_out import checkpoint_with_others, contents

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, as a build sees it."""
    context = tmp_path_factory.mktemp("context")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", str(ROOT), "--null", "-T", "-", "-cf", f"{context}/c.tar"], input=files, check=True)
    subprocess.run(["tar", "-C", str(context), "-xf", f"{context}/c.tar"], check=True)
    return context


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    why_not = missing()
    if why_not:
        pytest.skip(f"no image can be built here: {why_not}")
    builder = Builder(tmp_path_factory.mktemp("buildah"))
    builder.make_base()
    yield builder
    builder.run("umount", "--all")
    builder.run("rm", "--all")
    builder.run("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def image(builder: Builder, context: Path) -> Image:
    builder.build(context)
    return builder.unpack()


@pytest.fixture(scope="module")
def loader(builder: Builder, context: Path) -> Image:
    why_not = missing_for_loader()
    if why_not:
        pytest.skip(f"the loader has no base here: {why_not}")
    builder.make_loader_base()
    builder.build(context, "loader", LOADER_IMAGE, ROCM_BASE=LOADER_BASE)
    return builder.unpack(LOADER_IMAGE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    volume = tmp_path / "data"
    volume.mkdir()
    tokens = write_tokens(volume / "tokens.yaml")
    (volume / "admin").write_text(tokens.admin)
    os.chown(volume, 10001, 10001)
    return volume


def headers(data: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {(data / 'admin').read_text()}"}


def test_it_runs_as_nobody_on_a_read_only_root_and_keeps_its_data(image: Image, data: Path) -> None:
    assert image.config["User"] == "10001:10001"
    with image.running(data, tokens="/data/tokens.yaml", port="0") as container:
        ready = httpx.get(f"{container.url}/readyz")
        assert ready.status_code == 200
        pid = container.process.pid
        status = Path(f"/proc/{pid}/status").read_text()
        assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
        mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
        assert [options.split(",")[0] for _, at, _, options, *_ in mounts if at == "/"][-1] == "ro"
        put = httpx.put(f"{container.url}/v1/deployments/d", json=REPORT, headers=headers(data))
        assert put.status_code == 201
        assert container.stop() == 0
    with image.running(data, tokens="/data/tokens.yaml", port="0") as container:
        assert httpx.get(f"{container.url}/v1/deployments/d").json()["revision"] == put.json()["revision"]


def test_sigterm_drains_within_five_seconds(image: Image, data: Path) -> None:
    with image.running(data, tokens="/data/tokens.yaml", port="0") as container:
        queries = [REPORT["groups"][0]["observation"]["query"] | {"tp": tp} for tp in range(1, 46)]
        body = json.dumps({"queries": queries}).encode()
        url = httpx.URL(container.url)
        with (
            httpx.stream("GET", f"{container.url}/v1/events") as stream,
            socket.create_connection((url.host, url.port or 80), timeout=20) as asking,
        ):
            next(stream.iter_lines())
            asking.sendall(
                b"POST /v1/resolve/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            assert asking.recv(4096).startswith(b"HTTP/1.1 100")  # the request runs
            started = time.monotonic()
            container.process.send_signal(signal.SIGTERM)
            asking.sendall(body)
            assert asking.recv(65536).startswith(b"HTTP/1.1 200")
            assert container.process.wait(timeout=20) == 0
            assert time.monotonic() - started < 5


def test_without_tokens_it_does_not_start(image: Image, data: Path) -> None:
    with pytest.raises(AssertionError, match="did not say where it listens"), image.running(data, port="0"):
        pass


def test_there_is_no_torch_inside(image: Image) -> None:
    names = {path.name.split("-")[0].lower() for path in image.root.rglob("*.dist-info")}
    assert "preshuffle" in names
    assert not names & {"torch", "triton", "safetensors", "aiter", "amd_aiter"}


def test_the_loader_lays_a_checkpoint_out_and_back_as_nobody(loader: Image, tmp_path: Path) -> None:
    assert loader.config["User"] == "10001:10001"
    volume = tmp_path / "volume"
    volume.mkdir()
    checkpoint_with_others(volume / "checkpoint")
    for path in (volume, *volume.rglob("*")):
        os.chown(path, 10001, 10001)
    who = loader.call(volume, "sh", "-c", "id -u; touch /usr/x")
    assert (who.stdout, who.returncode) == ("10001\n", 1)
    fields = ("--arch", "MI355X", "--tp", "2", "--activation-dtype", "fp4x2")
    for command in (
        ("preshuffle", "apply", "checkpoint", "out", *fields),
        ("preshuffle", "verify", "out", "--against", "checkpoint"),
        ("preshuffle", "restore", "out", "back"),
    ):
        done = loader.call(volume, *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert contents(volume / "back") == contents(volume / "checkpoint")


def test_the_loader_has_the_bases_torch_and_aiter_and_its_doctor_says_what_is_missing(
    loader: Image, tmp_path: Path
) -> None:
    os.chown(tmp_path, 10001, 10001)
    done = loader.call(tmp_path, "preshuffle", "doctor", "--json")
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    text = json.dumps(report)
    assert f"{metadata.version('torch')}" in text
    assert f"{metadata.version('amd-aiter')}" in text
    names = {path.name.partition("-")[0].lower() for path in loader.root.rglob("*.dist-info")}
    assert {"preshuffle", "torch", "amd_aiter", "safetensors"} <= names
    assert not names & {"fastapi", "uvicorn", "sqlalchemy"}
