"""What the demonstration must print and leave behind."""

from __future__ import annotations

from pathlib import Path


def assert_both_layouts_are_proven(printed: str, folder: Path) -> None:
    """Assert that a run of the demo proved both layouts, and wrote its checkpoint."""
    assert "activations fp4x2: mxfp4.sep16" in printed
    assert "activations bf16: mxfp4.gui16" in printed
    assert printed.count(" ok ") == 20  # five proofs of two layers for two decisions
    assert "FAILED" not in printed
    assert "Everything is proven." in printed.splitlines()
    assert (folder / "checkpoint" / "model.safetensors.index.json").is_file()
