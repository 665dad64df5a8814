"""Engines that are not here, or cannot be one; wheels and checkouts; what an engine's import lacks."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from preshuffle.layouts.conform import ConformError
from preshuffle.layouts.conform.engines import engine_source
from preshuffle.layouts.conform.engines.engine_source import EngineSource, MissingEngine, find_engine
from support.engines.fake_engine import write_engine
from support.engines.trees import RELEASES

VERSION = RELEASES["atom"]


def missing(named: str) -> MissingEngine:
    with find_engine(named) as found:
        assert isinstance(found, MissingEngine)
        return found


def wheel_of(folder: Path, version: str = "9.1") -> Path:
    write_engine(folder / "source")
    wheel = folder / f"atom-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted((folder / "source").rglob("*.py")):
            archive.write(path, str(path.relative_to(folder / "source")))
        archive.writestr("atom/_C.abi3.so", "compiled")
        archive.writestr("setup.py", "raise SystemExit")
        archive.writestr(f"atom-{version}.dist-info/METADATA", f"Name: atom\nVersion: {version}\n")
    return wheel


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_source, "find_spec", lambda name: None)


@pytest.mark.usefixtures("not_installed")
@pytest.mark.parametrize("named", ["vllm", "sglang", "atom", "atom@0.1.5"])
def test_an_engine_that_is_not_installed(named: str) -> None:
    found = missing(named)
    assert found.name == named.partition("@")[0]
    assert "is not installed here; give --engine" in found.why


def test_an_engine_that_nothing_drives() -> None:
    found = missing("llama.cpp@/srv/llama")
    assert (found.name, found.why.rpartition(": ")[2]) == ("llama.cpp", "atom, sglang, vllm")


def test_an_installed_engine_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_engine(tmp_path)
    (root / "atom" / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(root))
    for named in ("atom", f"atom@{VERSION}"):
        with find_engine(named) as found:
            assert isinstance(found, EngineSource)
            assert (found.root, found.version, found.name) == (root, VERSION, f"atom@{VERSION}")
    assert missing("atom@0.1.5").why.startswith(f"ATOM {VERSION} is installed, not 0.1.5")
    assert "atom" not in sys.modules


def test_another_package_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atom").mkdir()
    (tmp_path / "atom" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert missing("atom").why == "a package atom is installed, but not ATOM: it has no model_ops/moe.py"


def test_a_wheel_is_unpacked_without_compiled_parts(tmp_path: Path) -> None:
    with find_engine(f"atom@{wheel_of(tmp_path)}") as found:
        assert isinstance(found, EngineSource)
        assert found.version == "9.1"
        files = {path.relative_to(found.root).as_posix() for path in found.root.rglob("*") if path.is_file()}
    assert {"atom/model_ops/moe.py", "atom-9.1.dist-info/METADATA"} <= files
    assert not {"atom/_C.abi3.so", "setup.py"} & files
    assert not found.root.exists()


def test_a_checkout_may_hold_the_package_deeper(tmp_path: Path) -> None:
    entry = tmp_path / "python" / "sglang" / "srt" / "layers" / "moe" / "fused_moe_triton" / "layer.py"
    entry.parent.mkdir(parents=True)
    entry.touch()
    with find_engine(f"sglang@{tmp_path}") as found:
        assert isinstance(found, EngineSource)
        assert (found.root, found.version, found.name) == (tmp_path / "python", None, "sglang")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/nowhere", "no such folder or wheel; valid: a version, a folder with vllm/, a .whl file"),
        (".", "holds no vllm/model_executor/layers/fused_moe/routed_experts.py: is it vLLM?"),
        ("broken.whl", "is not a readable wheel"),
    ],
)
def test_places_that_hold_no_engine(place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.whl").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(ConformError) as caught, find_engine(f"vllm@{place}"):
        pass
    assert message in str(caught.value)
