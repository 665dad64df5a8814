"""The images, built and run without a daemon: buildah, chroot isolation, bases that debootstrap made."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

BASE = "localhost/preshuffle-test-base"
IMAGE = "localhost/preshuffle-test"
LOADER_BASE = "localhost/preshuffle-test-rocm"
LOADER_IMAGE = "localhost/preshuffle-test-loader"
_PACKAGES = "python3,python3-venv,ca-certificates"
_LOADER_PACKAGES = "python3,python3-pip,ca-certificates"
_DEBIANS = {"3.11": "bookworm", "3.13": "trixie"}
"""Debian's release by its Python."""
_FROM_HERE = ("torch", "amd-aiter")
"""What a ROCm image brings, taken from this environment: torch of the CPU, and AMD's AITER."""
_PATH = "/opt/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Return why no image can be built here, or None."""
    absent = [tool for tool in ("buildah", "debootstrap", "unshare", "chroot", "mount") if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if os.getuid() != 0:
        return "only root may mount and chroot"
    allowed = subprocess.run(
        ["unshare", "--mount", "mount", "--bind", "/mnt", "/mnt"], capture_output=True, check=False
    )
    return None if allowed.returncode == 0 else f"the kernel forbids it: {allowed.stderr.decode().strip()}"


def missing_for_loader() -> str | None:
    """Return why the loader's base cannot be made here, or None."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python not in _DEBIANS:
        return f"no Debian has Python {python}, whose torch is here"
    try:
        names = {name: metadata.version(name) for name in _FROM_HERE}
    except metadata.PackageNotFoundError as error:
        return f"not installed here: {error}"
    return None if "cpu" in names["torch"] else f"torch {names['torch']} is not the CPU's"


def copy_packages(into: Path) -> None:
    """Copy torch and AITER with what they need, as far as it is installed here."""
    seen: set[str] = set()
    waiting = list(_FROM_HERE)
    while waiting:
        name = waiting.pop().lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        requirements = map(Requirement, found.requires or ())
        waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
        for file in found.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (into / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(found.locate_file(file)), into / file)


@dataclass(frozen=True)
class Builder:
    """Buildah with a store of its own."""

    folder: Path

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """Run buildah; return what it prints."""
        store = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        env = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
        ended = subprocess.run(
            ["buildah", *store, *words], env=env, cwd=cwd, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"buildah {shlex.join(words)}:\n{ended.stdout[-4000:]}{ended.stderr[-4000:]}"
        return ended.stdout.strip()

    def make_base(self) -> None:
        """Make a small Debian with Python: what PYTHON_IMAGE is elsewhere."""
        container = self._from_debian("stable", _PACKAGES)
        self.run("run", container, "--", "python3", "-m", "venv", "/opt/python")
        self.run("config", "--env", f"PATH={_PATH}", container)
        self._commit(container, BASE)

    def make_loader_base(self) -> None:
        """Make a Debian with torch and AMD's AITER: what ROCM_BASE is elsewhere, without a GPU."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        container = self._from_debian(_DEBIANS[python], _LOADER_PACKAGES)
        copy_packages(Path(self.run("mount", container)) / f"usr/local/lib/python{python}/dist-packages")
        self.run("umount", container)
        self._commit(container, LOADER_BASE)

    def _from_debian(self, suite: str, packages: str) -> str:
        """Return a container of Debian's smallest system with some packages."""
        root = self.folder / suite
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout[-2000:]
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(root), "/")
        shutil.rmtree(root)
        return container

    def _commit(self, container: str, name: str) -> None:
        self.run("commit", "--quiet", "--rm", container, name)

    def build(self, context: Path, target: str = "service", image: str = IMAGE, **arguments: str) -> None:
        """Build a target as a user does, on the base, with this machine's certificates."""
        certificates = "/etc/ssl/certs"
        mounts = ["--volume", f"{certificates}:{certificates}:ro"] if Path(certificates).is_dir() else []
        given = {"PYTHON_IMAGE": BASE, **arguments}
        words = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
        self.run(
            "bud", "--quiet", "--layers=false", *mounts, *words, "--target", target, "--tag", image, ".", cwd=context
        )

    def unpack(self, image: str = IMAGE) -> Image:
        """Return an image's files and configuration."""
        container = self.run("from", image)
        root = Path(self.run("mount", container))
        config = json.loads(self.run("inspect", "--type", "image", image))["OCIv1"]["config"]
        return Image(root, config)


@dataclass(frozen=True)
class Image:
    """An image's files, and what it says of itself."""

    root: Path
    config: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The environment that a container begins with."""
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    def _command(self, words: Sequence[str], data: Path, mounted: str) -> list[str]:
        root = shlex.quote(str(self.root))
        inside = f"cd {self.config['WorkingDir']} && exec {shlex.join(words)}"
        script = (
            f"mount --rbind {root} {root} && mount -o remount,ro,bind {root} && "
            f"mount --bind {shlex.quote(str(data))} {root}{mounted} && mount -t tmpfs tmpfs {root}/tmp && "
            f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && "
            f"exec chroot --userspec={self.config['User']} {root} "
            f"/bin/sh -c {shlex.quote(inside)}"
        )
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    def call(self, data: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command in it, with a volume where it begins, and wait for its end."""
        command = self._command(words, data, self.config["WorkingDir"])
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    @contextmanager
    def running(self, data: Path, *extra: str, **settings: str) -> Iterator[Container]:
        """Run it: its own user, its files read-only, a volume at /data and an empty /tmp."""
        words = [*self.config["Entrypoint"], *self.config["Cmd"], *extra]
        env = {**self.environment, **{f"PRESHUFFLE_{name.upper()}": value for name, value in settings.items()}}
        process = subprocess.Popen(self._command(words, data, "/data"), env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            port = re.search(r"serves http://[^ ]*:(\d+)", line)
            assert port, f"the container did not say where it listens: {line!r}"
            yield Container(process, f"http://127.0.0.1:{port[1]}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


@dataclass(frozen=True)
class Container:
    """A running container."""

    process: subprocess.Popen[str]
    url: str

    def stop(self) -> int:
        """End it as an orchestrator does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)
