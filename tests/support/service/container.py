"""The service's image, built and run without a daemon: buildah, chroot isolation, a base that debootstrap made."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASE = "localhost/preshuffle-test-base"
IMAGE = "localhost/preshuffle-test"
_PACKAGES = "python3,python3-venv,ca-certificates"
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
        root = self.folder / "base"
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "stable", str(root)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout[-2000:]
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(root), "/")
        self.run("run", container, "--", "python3", "-m", "venv", "/opt/python")
        self.run("config", "--env", f"PATH={_PATH}", container)
        self.run("commit", "--quiet", container, BASE)
        self.run("rm", container)
        shutil.rmtree(root)

    def build(self, context: Path) -> None:
        """Build the service's target as a user does, on the base, with this machine's certificates."""
        certificates = "/etc/ssl/certs"
        mounts = ["--volume", f"{certificates}:{certificates}:ro"] if Path(certificates).is_dir() else []
        target = ["--build-arg", f"PYTHON_IMAGE={BASE}", "--target", "service", "--tag", IMAGE]
        self.run("bud", "--quiet", "--layers=false", *mounts, *target, ".", cwd=context)

    def unpack(self) -> Image:
        """Return the image's files and configuration."""
        container = self.run("from", IMAGE)
        root = Path(self.run("mount", container))
        config = json.loads(self.run("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
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

    @contextmanager
    def running(self, data: Path, *extra: str, **settings: str) -> Iterator[Container]:
        """Run it: its own user, its files read-only, a volume at /data and an empty /tmp."""
        words: Sequence[str] = [*self.config["Entrypoint"], *self.config["Cmd"], *extra]
        root = shlex.quote(str(self.root))
        script = (
            f"mount --rbind {root} {root} && mount -o remount,ro,bind {root} && "
            f"mount --bind {shlex.quote(str(data))} {root}/data && mount -t tmpfs tmpfs {root}/tmp && "
            f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && "
            f"exec chroot --userspec={self.config['User']} {root} "
            f"/bin/sh -c 'cd {self.config['WorkingDir']} && exec {shlex.join(words)}'"
        )
        env = {**self.environment, **{f"PRESHUFFLE_{name.upper()}": value for name, value in settings.items()}}
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
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
