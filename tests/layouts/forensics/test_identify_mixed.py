"""``identify`` on tensors whose experts lie in different layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.api.cli import main
from preshuffle.layouts import Identification, apply_layout, identify
from preshuffle.layouts.forensics.identify import MOST_BYTES
from preshuffle.layouts.forensics.source import of_raw_file
from support.tensors.spoilt_tensors import draw


def noise(*shape: int, seed: int = 0, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def parts(found: Identification) -> list[tuple[int, int, str]]:
    return [(one.first, one.last, one.name) for one in found.experts]


def test_experts_that_a_load_did_not_reach() -> None:
    plain = noise(8, 256, 512)
    live = apply_layout(plain, "sep16")
    live[5:] = plain[5:]
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU")
    assert found.verdict == "mixed"
    assert parts(found) == [(0, 4, "sep16"), (5, 7, "raw")]
    assert found.name == "sep16 in experts 0 to 4; raw in experts 5 to 7"
    assert (found.layout, found.layouts, found.gate_mode, found.raw) == (None, (), None, False)
    assert found.faults == ("mixed_experts",)
    assert "write_expert" in found.fixes[0]
    assert [one.raw for one in found.experts] == [False, True]
    assert [one.layout for one in found.experts] == ["sep16", "plain"]
    assert found.confidence == 1.0


@pytest.mark.parametrize(("other", "name"), [("gui16", "gui16"), ("sep32", "sep32"), ("gurow16", "gurow16")])
def test_experts_in_another_layout(other: str, name: str) -> None:
    plain = noise(6, 128, 512)
    live = apply_layout(plain, "sep16")
    live[2:4] = apply_layout(plain[2:4].contiguous(), other)
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU")
    assert parts(found) == [(0, 1, "sep16"), (2, 3, name), (4, 5, "sep16")]


def test_experts_that_were_laid_out_twice() -> None:
    plain = noise(4, 128, 1024)
    live = apply_layout(plain, "gui16")
    live[3:] = apply_layout(live[3:].contiguous(), "gui16")
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU")
    assert parts(found) == [(0, 2, "gui16"), (3, 3, "gui16 applied twice")]
    assert found.faults == ("mixed_experts", "applied_twice")
    assert len(found.fixes) == 2


def test_raw_is_what_the_checkpoint_has_in_whichever_row_order() -> None:
    plain = noise(5, 128, 512)
    live = plain.clone()
    live[1:3] = apply_layout(torch.cat([plain[1:3, ::2], plain[1:3, 1::2]], dim=1), "gui16")
    found = identify(plain, live, role="w13_weight", gate_up_order="GUGU")
    assert parts(found) == [(0, 0, "raw"), (1, 2, "gui16"), (3, 4, "raw")]


def test_scales_with_few_different_bytes() -> None:
    plain = noise(6, 128, 16, low=118, high=131)
    live = apply_layout(plain, "e8")
    live[4:] = plain[4:]
    found = identify(plain, live, role="w2_weight_scale")
    assert parts(found) == [(0, 3, "e8"), (4, 5, "raw")]


def test_padded_experts_of_one_rank() -> None:
    plain = noise(4, 2 * 96, 512)
    halves = plain.unflatten(1, (2, -1))[:, :, 32:64]
    padded = torch.nn.functional.pad(halves, (0, 0, 0, 32)).flatten(1, 2).contiguous()
    live = apply_layout(padded, "sep16")
    live[2] = padded[2]
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU", tp=3, tp_rank=1)
    assert [(first, last) for first, last, _ in parts(found)] == [(0, 1), (2, 2), (3, 3)]
    assert [one.layout for one in found.experts] == ["sep16", "plain", "sep16"]


@pytest.mark.parametrize("border", [40, 150, 181])
def test_the_border_among_many_experts_is_found(border: int, tmp_path: Path) -> None:
    plain = noise(200, 64, 512)
    live = apply_layout(plain, "gui16")
    live[border:] = plain[border:]
    for name, tensor in (("plain", plain), ("live", live)):
        (tmp_path / name).write_bytes(tensor.numpy().tobytes())
    sides = [of_raw_file(tmp_path / name, tuple(plain.shape), "uint8") for name in ("plain", "live")]
    found = identify(*sides, role="w13_weight", gate_up_order="GGUU")
    assert parts(found) == [(0, border - 1, "gui16"), (border, 199, "raw")]
    assert sum(one.looked for one in found.experts) < 30
    assert "of 200 experts sampled" in found.name
    assert found.bytes_read <= MOST_BYTES


def test_what_the_budget_did_not_reach_is_said() -> None:
    plain = noise(64, 64, 4096)
    live = apply_layout(plain, "sep16")
    live[::2] = plain[::2]
    found = identify(plain, live, role="w2_weight")
    assert found.verdict in ("mixed", "unknown")
    assert found.bytes_read <= MOST_BYTES
    for one in found.experts:
        for expert in range(one.first, one.last + 1):
            if one.looked == one.last - one.first + 1:
                assert one.name == ("raw" if expert % 2 == 0 else "sep16")


def test_experts_without_an_explanation_leave_it_unknown() -> None:
    plain = noise(8, 256, 512)
    live = apply_layout(plain, "sep16")
    live[6:] = noise(2, 256, 512, seed=9)
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU")
    assert found.verdict == "unknown"
    assert parts(found) == [(0, 5, "sep16"), (6, 7, "unknown")]
    assert "sep16 in experts 0 to 5" in found.name


def test_an_expert_that_is_torn_in_itself_is_no_mixture() -> None:
    for seed in range(12):
        case = draw(500 + seed, "half of it raw")
        found = case.run(seed=seed)
        assert (found.verdict, found.experts) == ("unknown", ()), case


@pytest.mark.parametrize("corruption", ["some experts raw", "some experts laid out otherwise"])
def test_random_mixtures(corruption: str) -> None:
    for seed in range(20):
        case = draw(300 + seed, corruption)
        found = case.run(seed=seed)
        assert case.problem(found) is None
        assert found.verdict == "mixed"


def test_the_command_shows_which_experts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = noise(8, 128, 512)
    live = apply_layout(plain, "sep16")
    live[6:] = plain[6:]
    save_file({"w2_weight": plain}, tmp_path / "plain.safetensors")
    save_file({"w2_weight": live}, tmp_path / "live.safetensors")
    asked = ["identify", "--plain", str(tmp_path / "plain.safetensors"), "--live", str(tmp_path / "live.safetensors")]
    monkeypatch.setenv("COLUMNS", "140")
    assert main([*asked, "--role", "w2_weight"]) == 1
    out = capsys.readouterr().out
    for text in ("mixed", "0 to 5", "6 to 7", "sep16", "raw", "2 of 2", "write_expert"):
        assert text in out
    assert main([*asked, "--role", "w2_weight", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "mixed"
    assert [(one["first"], one["last"], one["layout"]) for one in told["experts"]] == [(0, 5, "sep16"), (6, 7, "plain")]
