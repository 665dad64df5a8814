"""``identify`` names what was done to bytes, or says unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.layouts import apply, apply_layout, identify
from preshuffle.layouts.forensics.identify import MOST_BYTES
from preshuffle.layouts.forensics.source import PAGE, Bytes, SourceError, TensorFile, of_raw_file
from preshuffle.registry import LayoutError, Registry
from support.book.strategies import load_overlay
from support.tensors.moe import decide, plain_tensors
from support.tensors.spoilt_tensors import CORRUPTIONS, draw

LAYOUTS = Registry.default().book.layouts


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_random_cases_out_of_files(corruption: str, tmp_path: Path) -> None:
    for seed in range(5):
        case = draw(7000 + seed, corruption)
        found = case.run(tmp_path, seed)
        assert case.problem(found) is None
        assert found.bytes_read <= MOST_BYTES


@pytest.mark.slow
def test_a_thousand_random_cases(tmp_path: Path) -> None:
    problems = []
    for number in range(1000):
        case = draw(number, CORRUPTIONS[number % len(CORRUPTIONS)])
        found = case.run(tmp_path, number)
        problems += [problem for problem in (case.problem(found),) if problem]
        assert found.bytes_read <= MOST_BYTES
    assert problems == []


@pytest.mark.parametrize("role", ["w13_weight", "w2_weight", "w13_weight_scale", "w2_weight_scale"])
def test_random_cases_in_memory(role: str) -> None:
    for seed in range(4):
        case = draw(9000 + seed, role=role)
        assert case.problem(case.run(seed=seed)) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_book(layout: str) -> None:
    group = LAYOUTS[layout].unit == "group"
    plain = noise(3, 256, 64 if group else 256)
    live = apply_layout(plain, layout)
    found = identify(plain, live, role="w13_weight_scale" if group else "w13_weight", gate_up_order="GGUU")
    assert (found.verdict, found.layout, found.faults) == ("identified", layout, ())
    assert found.gate_mode == LAYOUTS[layout].layout().gate_mode
    assert found.raw is (layout == "plain")
    assert found.confidence == 1.0
    assert found.log10_chance < -100
    assert found.blind_spot < 0.1


def test_a_layout_that_only_an_overlay_knows(tmp_path: Path) -> None:
    entry = 'mine: {title: T, pattern: "e (nt n4) (kt k32) -> e kt nt n4 k32", unit: byte, evidence: [https://a.b]}'
    registry = load_overlay(tmp_path, f"layouts:\n  {entry}\n")
    plain = noise(2, 64, 256)
    live = apply_layout(plain, registry.book.layout("mine"))
    assert identify(plain, live, role="w2_weight", registry=registry).layout == "mine"
    assert identify(plain, live, role="w2_weight").verdict == "unknown"


@pytest.mark.parametrize("activation", ["fp4x2", "bf16"])
@pytest.mark.parametrize("tp", [1, 2, 8])
def test_what_apply_made_of_a_rank(activation: str, tp: int) -> None:
    whole = decide(activation)
    everything = plain_tensors(whole)
    decision = decide(activation, tp=tp)
    for rank in {0, tp // 2, tp - 1}:
        start, stop = rank * (480 // tp // 32 * 32 or 64), (rank + 1) * (480 // tp // 32 * 32 or 64)
        if 480 % (32 * tp):
            start, stop = rank * 64 if tp == 8 else rank * 256, min((rank + 1) * (64 if tp == 8 else 256), 480)
        part = {
            "w13_weight": everything["w13_weight"][:, 2 * start : 2 * stop],
            "w13_weight_scale": everything["w13_weight_scale"][:, 2 * start : 2 * stop],
            "w13_bias": everything["w13_bias"][:, 2 * start : 2 * stop],
            "w2_weight": everything["w2_weight"][:, :, start // 2 : stop // 2],
            "w2_weight_scale": everything["w2_weight_scale"][:, :, start // 32 : stop // 32],
            "w2_bias": everything["w2_bias"],
        }
        tensors = {role: tensor.clone().contiguous() for role, tensor in part.items()}
        apply(tensors, decision, last_rank=rank == tp - 1)
        for role, decided in decision.tensors.items():
            asked: Any = {"tp": tp, "gate_up_order": "GUGU"}
            found = identify(everything[role], tensors[role], role=role, **asked)
            assert found.verdict == "identified", (role, found.name)
            assert decided.layout == found.layout
            assert found.faults == ()
            assert found.tp_rank == (rank if role != "w2_bias" else 0)
            if found.pad_fill is not None:
                assert found.pad_fill == decided.fill


def w2_bias_of(rank: int, tp: int, ep: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the checkpoint's bias of w2, and one rank's as ``apply`` makes it."""
    plain = plain_tensors(decide("fp4x2"))["w2_bias"]
    experts = plain[: plain.shape[0] // ep]
    live = torch.nn.functional.pad((experts if rank == 0 else torch.zeros_like(experts)).float(), (0, 32))
    return plain, live


@pytest.mark.parametrize("tp", [2, 8])
def test_the_bias_of_w2_is_whole_on_rank_0(tp: int) -> None:
    plain, live = w2_bias_of(0, tp)
    found = identify(plain, live, role="w2_bias", tp=tp, tp_rank=0)
    assert (found.verdict, found.name, found.faults) == ("identified", f"plain, tp rank 0 of {tp}", ())
    assert (found.layout, found.tp_rank, found.tp, found.pad_fill) == ("plain", 0, tp, 0)
    other = identify(plain, live, role="w2_bias", tp=tp, tp_rank=1)
    assert (other.verdict, other.faults) == ("identified", ("other_rank",))


@pytest.mark.parametrize("ep", [1, 2])
def test_the_bias_of_w2_is_zeros_on_other_ranks(ep: int) -> None:
    plain, live = w2_bias_of(1, 2, ep)
    found = identify(plain, live, role="w2_bias", tp=2, tp_rank=1)
    assert (found.verdict, found.faults) == ("identified", ())
    assert found.name == "zeros, tp rank 1 of 2 (rank 0 alone adds this bias)"
    assert (found.layout, found.tp_rank, found.tp, found.ep) == ("plain", 1, 2, ep)
    assert found.confidence == 1.0
    assert found.blind_spot < 0.1
    assert identify(plain, live, role="w2_bias", tp_rank=1).verdict == "identified"
    zeros = torch.zeros_like(plain)
    assert identify(zeros, live, role="w2_bias", tp=2, tp_rank=1).faults == ()


def test_zeros_in_the_bias_of_w2_are_not_those_of_rank_0() -> None:
    plain, live = w2_bias_of(1, 2)
    for rank in (None, 0):
        found = identify(plain, live, role="w2_bias", tp=2, tp_rank=rank)
        assert (found.verdict, found.layout) == ("unknown", None)
        assert "nothing was written here, or this rank holds none of it" in found.name


def test_the_rank_and_the_cut_are_found_out() -> None:
    plain = noise(4, 512, 256)
    live = apply_layout(plain[2:, 384:512].contiguous(), "sep16")
    found = identify(plain, live, role="w13_weight", gate_up_order="GUGU")
    assert found.verdict == "identified"
    assert (found.tp_rank, found.tp, found.ep_rank, found.ep) == (3, 4, 1, 2)


def test_another_rank_is_a_fault_where_one_was_expected() -> None:
    plain = noise(2, 512, 256)
    halves = plain.unflatten(1, (2, -1))[:, :, 64:128].flatten(1, 2)
    live = apply_layout(halves.contiguous(), "gui16")
    asked: Any = {"role": "w13_weight", "gate_up_order": "GGUU", "tp": 4}
    right, wrong = (identify(plain, live, **asked, tp_rank=rank) for rank in (1, 2))
    assert (right.name, right.faults) == ("gui16, tp rank 1 of 4", ())
    assert wrong.name == "gui16, tp rank 1 of 4, not the rank that was expected"
    assert wrong.faults == ("other_rank",)


def test_a_cut_through_groups_that_share_a_scale() -> None:
    plain = noise(2, 2 * 720, 128)
    live = plain.unflatten(1, (2, -1))[:, :, 90:180].flatten(1, 2).contiguous()
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU", tp=8)
    assert found.faults == ("cut_through_groups",)
    assert found.tp_rank == 1


def test_names_of_the_same_bytes_are_one_answer() -> None:
    rows = noise(2, 64, 512)
    alternating = torch.cat([rows[:, 0::2], rows[:, 1::2]], dim=1)
    found = identify(rows, apply_layout(alternating, "gurow16"), role="w13_weight", gate_up_order="GGUU")
    # rows that are alternated in vain lie as sep16 lays them
    assert (found.name, found.faults) == ("sep16", ())
    assert found.also == ("gurow16, rows read as GUGU though the checkpoint's are GGUU",)


def test_the_row_order_is_named_where_nobody_said_it() -> None:
    plain = noise(2, 256, 256)
    alternating = torch.cat([plain[:, 0::2], plain[:, 1::2]], dim=1)
    found = identify(plain, apply_layout(alternating, "gui16"), role="w13_weight")
    assert (found.name, found.read_as, found.faults) == ("gui16, rows read as GUGU", "GUGU", ())


def test_bf16_biases_that_became_fp32() -> None:
    plain = torch.randn(4, 512, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    live = torch.zeros(4, 768)
    for half in range(2):
        live[:, half * 384 : half * 384 + 256] = plain[:, half::2].float()
    found = identify(plain, live, role="w13_bias", gate_up_order="GUGU")
    assert (found.verdict, found.name, found.read_as) == ("identified", "plain", "GUGU")
    assert found.pad_fill == 0
    left = identify(plain, plain.float(), role="w13_bias", gate_up_order="GUGU")
    assert left.raw
    # rows that were left alternating are a layout of the book, too; which of them was meant, bytes cannot say
    assert (left.layout, left.faults) == ("gurow", ())
    assert "plain, rows read as GGUU though the checkpoint's are GUGU" in left.also


def test_scales_padded_at_the_flattened_tail() -> None:
    plain = noise(3, 80, 20)
    live = apply_layout(plain, "e8", fill=127)
    assert live.dim() == 2
    found = identify(plain, live, role="w2_weight_scale")
    assert (found.verdict, found.layout, found.faults) == ("identified", "e8", ())
    assert found.pad_fill == 127


def test_experts_that_were_not_told_apart() -> None:
    plain = noise(4, 128, 256)
    live = apply_layout(plain.flatten(0, 1), "gui16").view(plain.shape)
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU")
    assert found.name == "gui16 on all experts as if they were one"
    assert found.faults == ("experts_merged",)


def test_zeros_are_ambiguous_and_never_a_guess() -> None:
    plain = torch.zeros(2, 256, 256, dtype=torch.uint8)
    found = identify(plain, apply_layout(plain, "gui16"), role="w13_weight", gate_up_order="GGUU")
    assert found.verdict == "ambiguous"
    assert found.layout is None
    assert {"plain", "sep16", "gui16"} <= set(found.candidates)


def test_few_bytes_that_differ_are_enough() -> None:
    plain = torch.zeros(4, 256, 512, dtype=torch.uint8)
    random = torch.Generator().manual_seed(0)
    places = torch.randperm(plain.numel(), generator=random)[: plain.numel() // 50]
    plain.view(-1)[places] = torch.randint(1, 256, places.shape, generator=random).to(torch.uint8)
    found = identify(plain, apply_layout(plain, "gui16"), role="w13_weight", gate_up_order="GGUU")
    assert (found.verdict, found.layout) == ("identified", "gui16")


def test_unknown_bytes_name_what_came_nearest() -> None:
    plain = noise(8, 256, 256)
    live = apply_layout(plain, "sep16")
    live[:, 160:] = noise(8, 96, 256, seed=2)  # of every expert a part: no expert lies in a layout of its own
    found = identify(plain, live, role="w13_weight", gate_up_order="GGUU")
    assert found.verdict == "unknown"
    assert found.layout is None
    best = found.nearest[0]
    assert best.name == "sep16"
    assert 0.3 < best.places < 0.95
    other = identify(noise(8, 256, 256, seed=1), live, role="w13_weight", gate_up_order="GGUU")
    assert other.verdict == "unknown"
    assert all(near.places < 0.1 for near in other.nearest)


def test_a_budget_is_kept_and_what_it_left_out_is_said(tmp_path: Path) -> None:
    plain = noise(8, 512, 1024)
    for name, tensor in (("plain", plain), ("live", apply_layout(plain.flip(1), "gui16"))):
        (tmp_path / name).write_bytes(tensor.numpy().tobytes())
    sides = [of_raw_file(tmp_path / name, tuple(plain.shape), "uint8") for name in ("plain", "live")]
    found = identify(*sides, role="w13_weight", gate_up_order="GGUU", most_bytes=250_000)
    assert found.bytes_read <= 250_000
    assert found.verdict == "unknown"


class Watched(Bytes):
    """A side that notes which pages are read."""

    pages: set[int]

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        self.pages |= set(torch.div(positions + self.begin, PAGE, rounding_mode="floor").flatten().tolist())
        return super().read(positions)


def test_what_is_read_is_counted(tmp_path: Path) -> None:
    plain = noise(16, 1024, 2048)
    save_file({"x": plain}, tmp_path / "plain.safetensors")
    save_file({"x": apply_layout(plain, "gui16")}, tmp_path / "live.safetensors")
    sides = [TensorFile.open(tmp_path / f"{name}.safetensors").tensor("x") for name in ("plain", "live")]
    for side in sides:
        side.__class__ = Watched
        side.pages = set()  # type: ignore[attr-defined]
    found = identify(*sides, role="w13_weight", gate_up_order="GGUU")
    assert found.layout == "gui16"
    counted = [len(side.pages) * PAGE + side.overhead for side in sides]  # type: ignore[attr-defined]
    assert found.bytes_read == sum(counted) < plain.numel() // 50


@pytest.mark.parametrize(("rows", "k", "names"), [(32, 4, {"n32k4"}), (32, 8, set())])
def test_one_tile_that_a_layout_leaves_as_it_is(rows: int, k: int, names: set[str]) -> None:
    plain = noise(2, rows, k)
    found = identify(plain, plain.clone(), role="w2_weight_scale")
    assert (found.verdict, found.layout) == ("identified", "plain")
    assert names <= set(found.also)


def test_a_row_that_repeats_tells_no_layout() -> None:
    plain = noise(1, 1, 64).expand(2, 128, 64).contiguous()
    found = identify(plain, apply_layout(plain, "sep16"), role="w13_weight", gate_up_order="GGUU")
    assert found.verdict == "ambiguous"
    assert "sep16" in found.candidates


def test_a_sparse_file_of_gigabytes_costs_no_more(tmp_path: Path) -> None:
    shape = (128, 5760, 1440)
    for name in ("plain", "live"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(shape[0] * shape[1] * shape[2])
    sides = [of_raw_file(tmp_path / name, shape, "uint8") for name in ("plain", "live")]
    found = identify(*sides, role="w13_weight", gate_up_order="GUGU")
    assert found.verdict == "ambiguous"
    assert found.nbytes == 128 * 5760 * 1440
    assert found.bytes_read <= MOST_BYTES


@pytest.mark.parametrize(
    ("plain", "live", "asked", "complaint"),
    [
        (noise(2, 64, 64), noise(3, 64, 64), {}, "live holds 3 experts, plain 2"),
        (noise(4, 64, 64), noise(4, 64, 64), {"ep": 2}, "at ep 2 they would be 2"),
        (noise(2, 65, 64), noise(2, 65, 64), {}, "65 rows do not split"),
        (noise(2, 64, 64), noise(2, 32, 64), {"tp": 1}, "cut for tp 1, do not fit"),
        (noise(2, 64, 64), noise(2, 64, 64).view(torch.bfloat16), {}, "cannot be compared"),
        (noise(2, 64, 64), noise(8192), {}, "valid: .E, rows, K."),
        (noise(2, 64, 64).long(), noise(2, 64, 64), {}, "int64 is no dtype"),
    ],
)
def test_what_cannot_belong_together(
    plain: torch.Tensor, live: torch.Tensor, asked: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SourceError, match=complaint):
        identify(plain, live, role="w13_weight", **asked)


def test_strided_tensors_are_refused() -> None:
    plain = noise(2, 64, 64)
    with pytest.raises(LayoutError, match="not contiguous"):
        identify(plain, plain.transpose(1, 2), role="w13_weight")
