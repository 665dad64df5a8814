"""The YAML in the documentation loads as an overlay and does what the text says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.layouts import apply, inverse, prove, stamp_of, write_checkpoint
from preshuffle.registry import BookError, LayoutError, Observation, Query, Registry
from support.tensors.moe import hf_config
from support.tensors.plain_layer import checkpoint

ROOT = Path(__file__).parents[2]
QUERY = {
    "model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "deployment": "acme-1",
    "hidden_size": 256, "intermediate_size": 256, "num_experts": 2, "top_k": 1,
}  # fmt: skip


def overlay(folder: Path, page: str) -> Registry:
    """Load all YAML blocks of a page as one overlay."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        (folder / f"{number}.yaml").write_text(block, encoding="utf-8")
    return Registry.load([folder])


def test_the_example_of_extending_resolves_applies_and_proves(tmp_path: Path) -> None:
    registry = overlay(tmp_path, "docs/extending.md")
    decision = registry.resolve(Query.parse(QUERY))
    assert (decision.recipe, decision.rule) == ("acme.mxfp4", "acme.gpt-oss")
    plain = checkpoint(decision)
    tensors = {role: tensor.clone() for role, tensor in plain.items()}
    with pytest.raises(LayoutError, match=r"layout_mismatch: bytes are acme64 .*allow=\['layout_mismatch'\]"):
        apply(tensors, decision)  # the book knows AITER's kernels, and not Acme's
    apply(tensors, decision, allow=["layout_mismatch"])
    stamp = stamp_of(tensors["w13_weight"])
    assert stamp is not None
    assert stamp.layout == "acme64"
    assert [check for check in prove(plain, tensors, decision) if not check.ok] == []
    inverse(tensors, decision)
    assert all(bool((tensors[role] == plain[role]).all()) for role in ("w13_weight", "w2_weight"))


def test_the_example_of_extending_says_what_its_kernel_reads(tmp_path: Path) -> None:
    registry = overlay(tmp_path, "docs/extending.md")
    applied = {
        "gate_mode": "separated",
        "kernels": [{"tokens": 64, "stage1": "acme_moe1_afp4_t32"}],
        "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}},
    }
    report = registry.check(Observation.parse({"query": QUERY, "applied": applied}))
    (finding,) = [finding for finding in report.findings if finding.code == "layout_mismatch"]
    assert "reads acme64" in finding.message


def test_an_own_kernel_reads_what_its_function_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "own-kernel.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme.yaml").write_text(text)
    for command in re.findall(r"^\$ preshuffle (.*)$", page, re.MULTILINE):
        assert main(shlex.split(command)) == 0, command
    assert "findings  none" in capsys.readouterr().out
    write_checkpoint(tmp_path / "checkpoint", hf_config(layers=1))
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    assert stamp_of(names["tensors"]["w13_weight"]).layout == "acme64"  # type: ignore[union-attr]


def test_an_own_kernel_s_bytes_are_compared_with_its_families(tmp_path: Path) -> None:
    (text,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "own-kernel.md").read_text(), re.MULTILINE | re.DOTALL
    )
    file = tmp_path / "acme.yaml"
    file.write_text(text.replace("w2_weight: {layout: acme64", "w2_weight: {layout: sep16"))
    findings = Registry.load([file]).resolve(Query.parse(QUERY)).findings
    assert [(finding.code, finding.role, finding.expected) for finding in findings] == [
        ("layout_mismatch", "w2_weight", "acme64")
    ]
    assert "acme_fused_moe reads acme64" in findings[0].message
    file.write_text(text.replace("acme_stage2]\n    evid", "acme_stag2]\n    evid"))
    with pytest.raises(BookError, match="unknown kernel family 'acme_stag2'; did you mean acme_stage2"):
        Registry.load([file])


def test_the_examples_of_the_readme_load(tmp_path: Path) -> None:
    registry = overlay(tmp_path, "README.md")
    query = Query(model="acme/moe-1", arch="gfx950")
    assert registry.resolve(query).recipe == registry.resolve(query.altered(deployment="canary-1")).recipe
    assert registry.resolve(query.altered(deployment="canary-1")).rule == "acme.moe-1.canary"
