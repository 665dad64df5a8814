"""Calls that reach every table row and branch of AITER's dispatch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import ValidationError

from preshuffle.registry.base.versions import version_key
from preshuffle.registry.kernels import DispatchCall, KernelTables, behaviour_of, calls_of
from preshuffle.registry.loading import Book

SEED: Final = 20261130
GPUS: Final = (("gfx942", 304), ("gfx942", 80), ("gfx950", 256), ("gfx1250", 256))
UNTUNED_PER_GPU: Final = 700
BOUNDS: Final = ("AITER_BF16_FP8_MOE_BOUND", "GPTOSS_SWIGLU_MXFP4_BF16_BOUND")
_TOKENS: Final = (1, 2, 15, 16, 17, 33, 64, 100, 255, 256, 300, 511, 512, 1000, 1024, 2048, 4096, 16384, 20000)
_MANY_TOKENS: Final = (32767, 32768, 65536, 131072, 200000)
_QUANTS: Final[dict[str, tuple[str, ...]]] = {
    "bf16": ("No",),
    "fp16": ("No",),
    "fp8": ("per_Tensor", "per_Token", "per_1x128", "per_128x128", "per_1x32"),
    "i8": ("per_Token", "per_Tensor"),
    "fp4x2": ("per_1x32",),
    "i4x2": ("per_1x32", "per_Token"),
    "uint8": ("per_1x32",),
    "uint32": ("per_Token",),
}
_ENV_TRIALS: Final[tuple[dict[str, str], ...]] = (
    {"AITER_KSPLIT": "4"},
    {"AITER_KSPLIT": "-1"},
    {"AITER_BYPASS_TUNE_CONFIG": "1"},
    {"AITER_XBFLOAT16": "1"},
    {"AITER_FLYDSL_FORCE": "0"},
    {"AITER_FORCE_A8W4": "1"},
    {"AITER_SITUV2_A8W4": "1"},
    {"AITER_SITUV2_A4W4": "1"},
    {"AITER_DISABLE_GROUPED_A8W4": "1"},
    {"AITER_BF16_FP8_MOE_BOUND": "0", "GPTOSS_SWIGLU_MXFP4_BF16_BOUND": "0"},
)


class CallMaker:
    """Calls of one AITER version."""

    def __init__(self, version: str, book: Book, features: Sequence[str]) -> None:
        """Take the version, and the features that its sources have."""
        self.version, self.features = version, frozenset(features)
        self.behaviour = behaviour_of(version)
        situv2 = "situv2" in book.features and version_key(book.features["situv2"].since) <= version_key(version)
        self.activations = ("Silu", "Gelu", "Swiglu", *(["Situv2"] if situv2 else []))
        self.modes = ("separated", "interleave") if "gate_mode" in self.features else ("separated",)

    def all_calls(self, tables: KernelTables) -> list[DispatchCall]:
        """Return calls for every row and an untuned grid, each once."""
        chosen = random.Random(SEED)
        calls = [*self._row_calls(tables, chosen), *self._grouped_calls(tables), *self._untuned(chosen)]
        return list(dict.fromkeys(calls))

    def _call(self, fields: dict[str, Any]) -> DispatchCall | None:
        env = {name: value for name, value in fields.get("env", {}).items() if name in self.behaviour.env}
        try:
            return DispatchCall.model_validate({**fields, "env": env, "aiter": self.version})
        except ValidationError:
            return None

    def _row_calls(self, tables: KernelTables, chosen: random.Random) -> Iterator[DispatchCall]:
        for row in tables.rows:
            gpus = {(row.gfx, row.cu_num)} if row.gfx else set(GPUS)
            for base in calls_of([row]).values():
                if (base.gfx, base.cu_num) not in gpus or base.activation not in self.activations:
                    continue
                fields = base.model_dump() | {"tokens": row.token}
                if base.gate_mode in self.modes:
                    yield from self._of_row(fields, row.token, chosen)

    def _of_row(self, fields: dict[str, Any], token: int, chosen: random.Random) -> Iterator[DispatchCall]:
        trials: list[dict[str, Any]] = [{}, {"tokens": max(1, token - token // 3)}]
        if fields["quant_type"] == "per_1x32":
            low, high = ({name: bound for name in BOUNDS} for bound in ("0", str(1 << 20)))
            switches = {"Situv2": ({"AITER_SITUV2_A8W4": "1"}, {"AITER_SITUV2_A4W4": "1"})}
            trials += [{"env": env} for env in (low, high, *switches.get(fields["activation"], ()))]
        trials.append(self._variation(fields, chosen))
        yield from filter(None, (self._call({**fields, **trial}) for trial in trials))

    def _variation(self, fields: dict[str, Any], chosen: random.Random) -> dict[str, Any]:
        """Return one changed argument."""
        return chosen.choice(
            [
                {"is_shuffled": False},
                {"flydsl": False},
                {"ep": True, "topk": fields["topk"] + 1},
                {"ep": True},
                {"bias": True},
                {"doweight_stage1": not fields["doweight_stage1"]},
                {"use_g1u1": not fields["use_g1u1"]},
                {"activation": chosen.choice(self.activations)},
                {"dtype": "fp16"},
                {"hidden_pad": 64, "intermediate_pad": 128},
                {"tokens": chosen.choice(_TOKENS + _MANY_TOKENS)},
                {"env": chosen.choice(_ENV_TRIALS)},
            ]
        )

    def _grouped_calls(self, tables: KernelTables) -> Iterator[DispatchCall]:
        for row in (row for part in tables.sets for row in part.grouped):
            key = dict(row.key)
            experts = key.get("topk") == "-1"
            fields: dict[str, Any] = {
                "gfx": key.get("gfx", "gfx1250"),
                "cu_num": int(key.get("cu_num", 256)),
                "tokens": int(key.get("token", 64)),
                "model_dim": int(key.get("model_dim", 4096)),
                "inter_dim": int(key.get("inter_dim", 1024)),
                "expert": int(key.get("expert", 128)),
                "topk": 8 if experts else int(key.get("topk", 8)),
                "ep": experts,
                "activation": key.get("act_type", "Silu").removeprefix("ActivationType."),
                "weight_dtype": "fp4x2",
                "quant_type": "per_1x32",
                "gate_mode": "interleave",
                "env": {"AITER_FORCE_A8W4": "1"} if "float8" in key.get("q_dtype_a", "") else {},
            }
            for trial in ({}, {"weight_dtype": "uint8"}, {"flydsl": False}, {"tokens": fields["tokens"] * 3 + 1}):
                call = self._call({**fields, **trial})
                if call is not None and call.activation in self.activations:
                    yield call

    def _untuned(self, chosen: random.Random) -> Iterator[DispatchCall]:
        """Yield calls of shapes that no table has, over all combinations of dtypes in turn."""
        kinds = [(weight, quant) for weight, quants in _QUANTS.items() for quant in quants]
        for gfx, cu_num in GPUS:
            combinations = itertools.product(kinds, self.activations, self.modes)
            for (weight, quant), activation, mode in itertools.islice(itertools.cycle(combinations), UNTUNED_PER_GPU):
                fields = {
                    "gfx": gfx,
                    "cu_num": cu_num,
                    "tokens": chosen.choice(_TOKENS if chosen.random() < 0.9 else _MANY_TOKENS),
                    "model_dim": chosen.choice((2048, 2880, 3072, 4096, 7168)),
                    "inter_dim": chosen.choice((64, 128, 192, 256, 384, 1440, 1536, 2048)),
                    "expert": chosen.choice((8, 33, 128, 256)),
                    "topk": chosen.choice((1, 2, 8, 10)),
                    "activation": activation,
                    "dtype": "fp16" if chosen.random() < 0.1 else "bf16",
                    "weight_dtype": weight,
                    "quant_type": quant,
                    "gate_mode": mode,
                    "use_g1u1": chosen.random() < 0.85,
                    "doweight_stage1": chosen.random() < 0.2,
                    "is_shuffled": chosen.random() < 0.8,
                    "flydsl": chosen.random() < 0.8,
                    "ep": chosen.random() < 0.15,
                    "bias": chosen.random() < 0.2,
                    "env": chosen.choice(_ENV_TRIALS) if chosen.random() < 0.3 else {},
                }
                call = self._call(fields)
                if call is not None:
                    yield call


def sample(calls: Sequence[DispatchCall], count: int | None) -> list[DispatchCall]:
    """Return some calls, evenly spread; all for None."""
    if count is None or count >= len(calls):
        return list(calls)
    return [calls[number * len(calls) // count] for number in range(count)]
