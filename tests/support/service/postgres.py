"""A PostgreSQL server of the tests' own, in a temporary folder; one per process, started when first asked for."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path

import psycopg
import pytest

from support.processes.machine import free_port

_NUMBERS = count()
REQUIRED = "PRESHUFFLE_REQUIRE_POSTGRES"
START_S = 120.0


def new_database() -> str:
    """Return the URL of an empty database; skip the test where there is no PostgreSQL."""
    port = _server()
    if isinstance(port, str):
        if os.environ.get(REQUIRED):
            pytest.fail(port)
        pytest.skip(port)
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(f"postgresql://tester@127.0.0.1:{port}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql://tester@127.0.0.1:{port}/{name}"


@contextmanager
def small_tablespace() -> Iterator[tuple[str, Path]]:
    """Yield the URL of a database on a disk of 16 MiB, and a file that takes a part of it; skip where none can be."""
    url = new_database()
    folder = Path(tempfile.mkdtemp(prefix="preshuffle-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("only root can mount a small disk here")
    try:
        space = folder / "space"
        space.mkdir()
        os.chown(space, pwd.getpwnam(_user() or "root").pw_uid, -1)
        os.chmod(folder, 0o755)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{space}'".encode())
            connection.execute(b"CREATE DATABASE small TEMPLATE template0 TABLESPACE small")
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(7 << 20))
        yield f"{url.rpartition('/')[0]}/small", ballast
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(b"DROP DATABASE small WITH (FORCE)")
            connection.execute(b"DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


@lru_cache(maxsize=1)
def _server() -> int | str:
    """Start a server; return its port, or why there is none."""
    binaries = _binaries()
    if binaries is None:
        return "PostgreSQL is not here (Debian: apt-get install postgresql)"
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="preshuffle-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    data = folder / "data"
    # fast instead of safe: no test takes the power from the server itself
    init: list[str | Path] = [
        binaries / "initdb",
        "-D",
        data,
        "-U",
        "tester",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
        "--no-instructions",
    ]
    subprocess.run(init, user=user, check=True, stdout=subprocess.DEVNULL, cwd="/")
    port = free_port()
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off", "port": port}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binaries / "postgres", "-D", data, *settings], user=user, cwd="/", stderr=log)
    atexit.register(_stop, process)
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(f"postgresql://tester@127.0.0.1:{port}/postgres", connect_timeout=2).close()
            return port
        except psycopg.OperationalError:
            time.sleep(0.05)
    return f"PostgreSQL did not start: {(folder / 'log').read_text()[-500:]}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # fast: connections are cut
    process.wait(timeout=20)


def _binaries() -> Path | None:
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def _user() -> str | None:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
