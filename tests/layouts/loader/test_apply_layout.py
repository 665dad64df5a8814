"""``apply_layout``: laws for every layout, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from preshuffle.layouts import apply, apply_layout, invert_layout, stamp_of
from preshuffle.layouts.loader import single
from preshuffle.layouts.loader.single import layout_of
from preshuffle.layouts.proof.reference import fetch_expert
from preshuffle.registry import LayoutError, Registry
from support.tensors.moe import decide, plain_tensors

LAYOUTS = sorted(Registry.default().book.layouts)
FILL = 0x7F


def random_bytes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def padded_plain(tensor: torch.Tensor, layout_id: str) -> torch.Tensor:
    """Return the padded plain bytes that the addresses must hold.

    Each half is padded on its own where the layout moves gate and up.
    """
    layout = layout_of(layout_id)
    experts, rows, k = tensor.shape
    halves = 2 if layout.pattern.splits_gate_up else 1
    half = -(-(rows // halves) // layout.row_multiple) * layout.row_multiple
    width = -(-k // layout.k_multiple) * layout.k_multiple
    wanted = torch.full((experts, halves, half, width), FILL, dtype=torch.uint8)
    wanted[:, :, : rows // halves, :k] = tensor.view(experts, halves, rows // halves, k)
    return wanted.view(experts, halves * half, width)


@settings(deadline=None)
@given(
    layout_id=st.sampled_from(LAYOUTS),
    experts=st.integers(1, 3),
    half=st.integers(1, 70),
    k=st.integers(1, 150),
    seed=st.integers(0, 99),
)
def test_every_byte_lies_at_its_closed_form_address(layout_id: str, experts: int, half: int, k: int, seed: int) -> None:
    rows = half * (2 if layout_of(layout_id).pattern.splits_gate_up else 1)
    plain = random_bytes(experts, rows, k, seed=seed)
    laid = apply_layout(plain, layout_id, fill=FILL)
    flat = layout_of(layout_id).unit == "group" and rows % layout_of(layout_id).pattern.row_tile != 0
    reference = plain.view(1, experts * rows, k) if flat and not layout_of(layout_id).pattern.splits_gate_up else plain
    wanted = padded_plain(reference, layout_id)
    shape = (wanted.shape[0], wanted.shape[1], wanted.shape[2])
    for expert in range(shape[0]):
        assert fetch_expert(laid, layout_id, shape, expert).equal(wanted[expert])
    assert invert_layout(laid, layout_id, shape=tuple(plain.shape)).equal(plain)


@settings(deadline=None)
@given(layout_id=st.sampled_from(LAYOUTS), experts=st.integers(1, 4), tiles=st.integers(1, 3), seed=st.integers(0, 99))
def test_one_expert_at_a_time_is_the_whole_tensor(layout_id: str, experts: int, tiles: int, seed: int) -> None:
    plain = random_bytes(experts, 64 * tiles, 64 * tiles, seed=seed)
    whole = apply_layout(plain, layout_id)
    assert torch.cat([apply_layout(plain[e : e + 1], layout_id) for e in range(experts)]).equal(whole)
    flat = apply_layout(plain.view(-1, plain.shape[2]), layout_id, experts=experts)
    assert flat.equal(whole.view(flat.shape))


@pytest.mark.parametrize("layout_id", LAYOUTS)
@pytest.mark.parametrize("make", [lambda n: torch.empty(n, dtype=torch.uint8), lambda n: torch.empty(n // 4).float()])
def test_out_is_written_in_place(layout_id: str, make) -> None:  # type: ignore[no-untyped-def]
    plain = random_bytes(2, 64, 128)
    out = make(plain.numel())
    result = apply_layout(plain, layout_id, out=out)
    assert result.data_ptr() == out.data_ptr()
    assert result.equal(apply_layout(plain, layout_id))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int8, torch.float8_e4m3fn])
def test_weights_of_any_dtype_are_moved_as_bytes(dtype: torch.dtype) -> None:
    plain = random_bytes(2, 64, 256)
    found = apply_layout(plain.view(dtype), "sep16")
    assert found.dtype == dtype
    assert found.view(torch.uint8).equal(apply_layout(plain, "sep16"))


def test_odd_storage_offsets_are_moved_in_narrower_units() -> None:
    buffer = random_bytes(1 + 2 * 32 * 64)
    plain = buffer[1:].view(2, 32, 64)
    assert apply_layout(plain, "sep16").equal(apply_layout(plain.clone(), "sep16"))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((2, 24, 64), {}, r"rows = 24 is not a multiple of 16; padded it is 32"),
        ((2, 32, 33), {}, r"K = 33 bytes is not a multiple of 32; padded it is 64"),
        ((64,), {}, r"valid: \[E, rows, K\]"),
        ((33, 64), {"experts": 2}, r"33 rows are not those of 2 experts"),
        ((2, 32, 64), {"experts": 3}, r"experts = 3, but the tensor .* holds 2"),
        ((2, 32, 64), {"fill": 256}, r"fill = 256; valid: a byte"),
        ((2, 32, 64), {"fill": 0.5}, r"fill = 0.5; valid: a byte"),
        ((2, 32, 64), {"fill": True}, r"fill = True; valid: a byte"),
        ((2, 32, 64), {"backend": "cuda"}, r"unknown backend 'cuda'; valid: "),
        ((2, 32, 64), {"out": torch.empty(10, dtype=torch.uint8)}, r"out holds 10 bytes; 4096 are needed"),
        ((2, 0, 64), {}, r"rows is 0"),
    ],
)
def test_refusals_say_what_is_wrong(shape: tuple[int, ...], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        apply_layout(random_bytes(*shape), "sep16", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensor", "message"), [([[1]], "a list is no tensor"), (torch.zeros(32, 64, device="meta"), "on the meta device")]
)
def test_what_is_no_tensor_is_refused(tensor: object, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        apply_layout(tensor, "sep16")  # type: ignore[arg-type]


def test_an_unknown_layout_is_named_with_the_known_ones() -> None:
    with pytest.raises(LayoutError, match=r"unknown layout 'sep17'; valid: .*sep16"):
        apply_layout(random_bytes(32, 64), "sep17")


def test_scales_are_single_bytes() -> None:
    with pytest.raises(LayoutError, match=r"e8 is for scales of one byte; found torch.float32"):
        apply_layout(torch.zeros(32, 8), "e8")


def test_out_may_not_be_the_tensor_itself() -> None:
    plain = random_bytes(1, 32, 64)
    before = plain.clone()
    with pytest.raises(LayoutError, match="shares bytes with the tensor"):
        apply_layout(plain, "sep16", out=plain)
    assert plain.equal(before)


def test_out_may_lie_beside_the_tensor_in_one_storage() -> None:
    both = torch.zeros(2, 2, 32, 64, dtype=torch.uint8)
    both[0] = torch.arange(2 * 32 * 64).view(2, 32, 64) % 251
    assert apply_layout(both[0], "sep16", out=both[1]).equal(apply_layout(both[0].clone(), "sep16"))
    with pytest.raises(LayoutError, match="shares bytes"):
        apply_layout(both.view(-1)[:4096].view(2, 32, 64), "sep16", out=both.view(-1)[2048:6144].view(2, 32, 64))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_dense_memory_is_refused() -> None:
    with pytest.raises(LayoutError, match="the tensor is quantized; valid: a dense tensor"):
        apply_layout(torch.quantize_per_tensor(torch.randn(2, 32, 64), 0.1, 0, torch.qint8), "sep16")
    with pytest.raises(LayoutError, match="the tensor is sparse_coo; valid: a dense tensor"):
        apply_layout(torch.ones(2, 32, 64).to_sparse(), "sep16")


def test_laid_out_bytes_are_not_laid_out_again_and_an_overwritten_stamp_is_forgotten() -> None:
    decision = decide("fp4x2")
    apply(tensors := plain_tensors(decision), decision)
    laid = tensors["w2_weight"].view(torch.uint8)
    with pytest.raises(LayoutError, match="the tensor is laid out already"):
        apply_layout(laid, "sep16")
    with pytest.raises(LayoutError, match="out is a part of what is laid out already"):
        apply_layout(torch.zeros_like(laid[:1]), "sep16", out=laid[:1])
    assert stamp_of(laid) is not None
    apply_layout(torch.zeros_like(laid), "sep16", out=laid)
    assert stamp_of(laid) is None
    assert stamp_of(tensors["w13_weight"]) is not None


def test_out_in_other_storage_of_the_same_memory_is_refused() -> None:
    memory = random_bytes(3 * 64 * 128).numpy()
    plain = torch.from_numpy(memory[: 2 * 64 * 128]).view(2, 64, 128)
    with pytest.raises(LayoutError, match="out shares bytes with the tensor"):
        apply_layout(plain, "sep16", out=torch.from_numpy(memory[64 : 64 + 2 * 64 * 128]))


@settings(deadline=None, max_examples=200)
@example(layout_id="e8", experts=2, half=1, k=1, first=(0, 0, 0), more=(0, 0, 1))
@given(
    layout_id=st.sampled_from(LAYOUTS),
    experts=st.integers(1, 3),
    half=st.integers(1, 40),
    k=st.integers(1, 80),
    first=st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 20)),
    more=st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 20)),
)
def test_a_slice_is_laid_out_where_it_lies(
    layout_id: str, experts: int, half: int, k: int, first: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    rows = half * (2 if layout_of(layout_id).pattern.splits_gate_up else 1)
    shape = (experts, rows, k)
    whole = random_bytes(*(begin + size + rest for begin, size, rest in zip(first, shape, more, strict=True)))
    cut = whole[tuple(slice(begin, begin + size) for begin, size in zip(first, shape, strict=True))]
    wanted = apply_layout(cut.clone(), layout_id, fill=FILL)
    assert apply_layout(cut, layout_id, fill=FILL).equal(wanted)
    assert apply_layout(cut.transpose(1, 2).contiguous().transpose(1, 2), layout_id, fill=FILL).equal(wanted)


class _Copies(TorchDispatchMode):
    """Counts the elements that whole copies of tensors make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.clone.default, torch.ops.aten.contiguous.default):
            self.elements += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout_id", ["sep16", "gui16", "gurow16"])
def test_a_tensor_parallel_slice_is_not_copied_first(layout_id: str) -> None:
    whole = random_bytes(2, 4, 64, 256)
    cut = whole[:, 1].view(2, 64, 256)[:, :, 128:]
    with _Copies() as copies:
        laid = apply_layout(cut, layout_id)
    assert copies.elements == 0
    assert laid.equal(apply_layout(cut.clone(), layout_id))


def test_experts_are_told_from_truth_values_whatever_was_asked_before() -> None:
    plain = random_bytes(32, 64)
    apply_layout(plain, "sep16", experts=1)
    with pytest.raises(LayoutError, match="experts = True; valid: a whole number"):
        apply_layout(plain, "sep16", experts=True)


def test_bytes_in_another_layout_are_not_taken_back() -> None:
    decision = decide("fp4x2")
    apply(tensors := plain_tensors(decision), decision)
    laid = tensors["w2_weight"].view(torch.uint8)
    with pytest.raises(LayoutError, match=r"not laid out as gui16: it is laid out already \(sep16"):
        invert_layout(laid, "gui16")
    invert_layout(laid, "sep16")


@pytest.mark.parametrize("layout", [None, ["sep16"], 3])
def test_no_layout_is_an_error_in_words(layout: Any) -> None:
    with pytest.raises(LayoutError, match="is no layout; valid: an id or a Layout"):
        apply_layout(random_bytes(1, 32, 64), layout)


def test_lazily_conjugated_and_negated_values_are_laid_out_as_what_they_show() -> None:
    plain = torch.randn(1, 16, 16, dtype=torch.complex64)
    assert apply_layout(plain.conj(), "sep16").equal(apply_layout(plain.conj().resolve_conj(), "sep16"))
    negated = torch._neg_view(torch.randn(1, 16, 32))
    assert apply_layout(negated, "sep16").equal(apply_layout(negated.resolve_neg(), "sep16"))


def test_an_out_that_is_half_written_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, out = random_bytes(2, 64, 128), random_bytes(2, 64, 128)

    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(single, "lay_out", fails)
        with pytest.raises(MemoryError):
            apply_layout(plain, "gui16", out=out)
    stamp = stamp_of(out[1])
    assert stamp is not None
    assert (stamp.state, stamp.layout) == ("broken", "gui16")
    apply_layout(plain, "gui16", out=out)
    assert stamp_of(out) is None
