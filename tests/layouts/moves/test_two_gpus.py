"""Work on a GPU that is not the current one. Skipped where there are not two."""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts import apply_layout

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.mark.parametrize("layout", ["sep16", "gui16", "e8", "e8_gui16"])
def test_a_tensor_is_laid_out_on_its_own_gpu(layout: str) -> None:
    plain = torch.randint(0, 256, (64, 512, 512), dtype=torch.uint8)
    wanted = apply_layout(plain, layout)
    for _ in range(2):  # by Triton's call, then directly
        for device in ("cuda:1", "cuda:0"):
            found = apply_layout(plain.to(device), layout)
            assert found.device == torch.device(device)
            assert found.cpu().equal(wanted)
    assert torch.cuda.current_device() == 0


def test_it_waits_for_the_stream_of_that_gpu() -> None:
    made = torch.randint(0, 256, (64, 512, 512), dtype=torch.uint8, device="cuda:1")
    wanted = apply_layout(made, "sep16").cpu()
    late, out = torch.zeros_like(made), torch.zeros_like(made)
    stream = torch.cuda.Stream("cuda:1")
    torch.cuda.synchronize("cuda:1")
    with torch.cuda.device("cuda:1"):
        torch.cuda.set_stream(stream)
        torch.cuda._sleep(200_000_000)
    late.copy_(made)
    apply_layout(late, "sep16", out=out)
    torch.cuda.synchronize("cuda:1")
    assert out.cpu().equal(wanted)
