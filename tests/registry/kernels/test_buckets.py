"""The buckets of a call, found by looking only where the outcome may change, are those of looking everywhere."""

import random

import pytest

from preshuffle.registry.kernels import DispatchCall, KernelTables, TokenBucket, dispatch, reachable_buckets, survey
from preshuffle.registry.kernels.dispatch.dispatch import open_call
from preshuffle.registry.kernels.survey.buckets import _outcome, _Summary
from support.aiter.kernel_rows import BASE, MX, SEP, SWIGLU, table, tables

FIELDS: dict[str, tuple[object, ...]] = {
    "gfx": ("gfx950", "gfx950", "gfx942", "gfx1250", "gfx90a"),
    "cu_num": (20, 80, 256, 304),
    "model_dim": (2880, 3072, 7168),
    "inter_dim": (96, 192, 256, 384, 3072),
    "expert": (1, 8, 128, 257),
    "topk": (1, 2, 8, 9),
    "activation": ("Silu", "Swiglu", "Gelu", "Situv2"),
    "weight_dtype": ("fp4x2", "fp4x2", "fp8", "bf16", "i4x2", "uint8"),
    "quant_type": ("per_1x32", "per_1x32", "No", "per_Token", "per_1x128"),
    "gate_mode": ("separated", "interleave"),
    "is_shuffled": (True, True, False),
    "flydsl": (True, True, False),
    "doweight_stage1": (False, False, True),
    "ep": (False, True),
    "aiter": (None, "0.1.7", "0.1.9", "0.1.13", "0.1.14", "0.1.17", "0.1.18", "0.1.20"),
    "env": (
        {},
        {"AITER_BF16_FP8_MOE_BOUND": "300"},
        {"AITER_BF16_FP8_MOE_BOUND": "many"},
        {"AITER_KSPLIT": "2"},
        {"AITER_KSPLIT": "many"},
        {"AITER_FLYDSL_FORCE": "0"},
        {"AITER_USE_NT": "yes"},
        {"GPU_ARCHS": "gfx942"},
        {"CU_NUM": "80"},
    ),
}


def everywhere(call: DispatchCall, tables: KernelTables | None) -> list[TokenBucket]:
    """Return the buckets by their definition: every choice at every point where it may change."""
    found: list[TokenBucket] = []
    for point, _ in _Summary(*open_call(call, tables, None), upto=None).points:
        choice = dispatch(call.model_copy(update={"tokens": point}), tables)
        if found and _outcome(found[-1].choice) == _outcome(choice):
            continue
        if found:
            found[-1] = TokenBucket(found[-1].lo, point - 1, found[-1].choice)
        found.append(TokenBucket(point, None, choice))
    return found


def test_buckets_are_those_of_looking_everywhere() -> None:
    random_ = random.Random(19)
    for _ in range(600):
        call = DispatchCall.model_validate({"tokens": 1, **{name: random_.choice(of) for name, of in FIELDS.items()}})
        assert reachable_buckets(call) == everywhere(call, None), call


@pytest.mark.parametrize("env", FIELDS["env"])
def test_a_shape_with_rows_is_looked_up_at_every_point(env: dict[str, str]) -> None:
    rows = ({**BASE, **SWIGLU, "token": token, "kernelName1": SEP} for token in ("64", "2048", "32768"))
    held = tables(table(*rows))
    for other in ({}, {"expert": 64}, {"ep": True, "topk": 5}, {"aiter": "0.1.18"}, {"gate_mode": "interleave"}):
        call = DispatchCall.model_validate({**MX, **other, "env": env})
        assert reachable_buckets(call, held) == everywhere(call, held), call


def test_a_survey_answers_each_token_count_as_dispatch_does() -> None:
    random_ = random.Random(23)
    counts = (0, 1, 2, 16, 17, 64, 255, 256, 1000, 4096, 16384, 65536, 70000)
    held = tables(table({**BASE, **SWIGLU, "token": "64", "kernelName1": SEP}))
    calls = [{"tokens": 1, **{name: random_.choice(of) for name, of in FIELDS.items()}} for _ in range(200)]
    for fields in [*calls, MX]:
        call = DispatchCall.model_validate(fields)
        for given in (None, held):
            choices, ranges = survey(call, counts, given, upto=65536)
            assert list(ranges) == reachable_buckets(call, given, upto=65536)
            for count, choice in zip(counts, choices, strict=True):
                assert choice == dispatch(call.model_copy(update={"tokens": count}), given), (count, call)
