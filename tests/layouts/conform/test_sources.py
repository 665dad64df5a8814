"""AITERs that cannot be one, and children that do not end well: one clear error each."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from preshuffle.layouts.conform import ConformError, aiter_source, open_aiter
from preshuffle.layouts.conform.child import run_worker
from preshuffle.layouts.conform.dispatch import check_dispatch
from preshuffle.layouts.conform.layout_bytes import check_bytes
from preshuffle.registry import Registry
from preshuffle.registry.loading import load_book

SOURCES = {
    "aiter/__init__.py": "raise SystemExit('imported')\n",
    "aiter/fused_moe.py": "def fused_moe(*args, gate_mode=None): ...\n",
    "amd_aiter-0.1.20.dist-info/METADATA": "Metadata-Version: 2.1\nName: amd-aiter\nVersion: 0.1.20\n",
}


def wheel_of(folder: Path, files: dict[str, str], name: str = "amd_aiter-0.1.20-py3-none-any.whl") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for entry, text in files.items():
            archive.writestr(entry, text)
    return path


def opened(place: Path) -> str | None:
    with open_aiter(str(place)) as source:
        return source.version


def test_a_wheel_is_unpacked_and_removed(tmp_path: Path) -> None:
    with open_aiter(str(wheel_of(tmp_path, SOURCES))) as source:
        assert (source.version, source.place) == ("0.1.20", "wheel")
        assert source.build().id == "0.1.20"
        root = source.root
        assert not (root / "setup.py").exists()
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../aiter/evil.py", "names a path outside itself"),
        ("/etc/aiter/evil.py", "names a path outside itself"),
        ("aiter/../../evil.py", "names a path outside itself"),
        ("aiter\\..\\evil.py", "names a path outside itself"),
    ],
)
def test_a_wheel_that_names_a_path_outside_itself(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConformError, match=message):
        opened(wheel_of(tmp_path, {**SOURCES, name: ""}))
    assert not (tmp_path / "evil.py").exists()


def test_a_wheel_with_a_link(tmp_path: Path) -> None:
    path = tmp_path / "linked.whl"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("aiter/configs")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
    with pytest.raises(ConformError, match="holds a link"):
        opened(path)


def test_a_wheel_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiter_source, "MAX_BYTES", 1 << 16)
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("aiter/fused_moe.py", "#" * (1 << 20))
    with pytest.raises(ConformError, match="unpacks to more than"):
        opened(path)


def test_a_wheel_of_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiter_source, "MAX_ENTRIES", 2)
    with pytest.raises(ConformError, match="has 3 entries"):
        opened(wheel_of(tmp_path, SOURCES))


def test_files_that_are_no_wheel(tmp_path: Path) -> None:
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(ConformError, match="is not a readable wheel"):
        opened(broken)
    with pytest.raises(ConformError, match="the wheel holds no aiter/fused_moe"):
        opened(wheel_of(tmp_path, {"aiter/__init__.py": ""}))
    with pytest.raises(ConformError, match="is it AMD's AITER"):
        opened(tmp_path)


def tree_of(folder: Path, fused_moe: str) -> Path:
    (folder / "aiter" / "ops").mkdir(parents=True)
    (folder / "aiter" / "fused_moe.py").write_text(fused_moe, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os._exit(0)", "AITER's code gave no answer"),
        ("", "get_2stage_cfgs"),
    ],
)
def test_code_that_does_not_run_is_told(tmp_path: Path, code: str, why: str) -> None:
    with open_aiter(str(tree_of(tmp_path, code))) as source:
        result = check_dispatch(source, "0.1.20", load_book([]), 4).result()
    assert result.tried == 0
    told = " ".join(item.why for item in result.not_run)
    assert why in told


def test_functions_that_are_not_there_are_told(tmp_path: Path) -> None:
    with open_aiter(str(tree_of(tmp_path, ""))) as source:
        result = check_bytes(source, Registry.default().book).result()
    assert result.tried == 0
    assert any("this AITER has none" in item.why for item in result.not_run)


def test_a_child_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "import time; time.sleep(600)")
    request = {
        **{"root": str(tree), "package": str(tree / "aiter"), "table": "/none", "grouped": "/none"},
        "groups": [{"gfx": "gfx950", "cu_num": 256, "calls": []}],
    }
    with pytest.raises(ConformError, match="no answer after 1 seconds"):
        run_worker("dispatch_worker", request, timeout_s=1)


def test_a_child_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESHUFFLE_TOKENS", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code = "import os; raise RuntimeError(sorted(n for n in os.environ if 'SECRET' in n or 'PRESHUFFLE' in n))"
    with open_aiter(str(tree_of(tmp_path, code))) as source:
        result = check_dispatch(source, "0.1.20", load_book([]), 2).result()
    assert any("RuntimeError: []" in item.why for item in result.not_run)
    assert "AWS_SECRET_ACCESS_KEY" in os.environ


def test_the_commit_of_a_checkout_is_read_without_git(tmp_path: Path) -> None:
    tree, commit = tree_of(tmp_path, ""), "ab" * 20
    (tree / ".git" / "refs" / "heads").mkdir(parents=True)
    (tree / ".git" / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    (tree / ".git" / "refs" / "heads" / "main").write_text(f"{commit}\n", encoding="utf-8")
    with open_aiter(str(tree)) as source:
        assert source.commit == commit
        assert source.build("0.1.20").id == f"g{commit[:12]}"
