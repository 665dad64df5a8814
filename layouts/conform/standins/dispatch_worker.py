"""Child process: AITER's own ``fused_moe`` chooses kernels for calls on meta tensors.

It runs unmodified until it would sort tokens; what it decided until then is written down.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, ModuleType, SimpleNamespace
from typing import Any

import torch

from preshuffle.layouts.conform.standins import frame
from preshuffle.layouts.conform.standins.aiter_modules import (
    GPU,
    ActivationType,
    QuantType,
    dtype_names,
    install_aiter,
)
from preshuffle.layouts.conform.standins.requests import AnswerFile, read_request

GROUPED = "aiter.ops.flydsl.grouped_moe_gfx1250"
LAUNCH = "_grouped_a8w4_tdm_moe"
SORTS = ("moe_sorting", "_moe_prepare_unsorted_input")
FIRST_BOUND = "GPTOSS_SWIGLU_MXFP4_BF16_BOUND"
"""Read when AITER is imported; the module keeps it under the name of the next line."""
FIRST_BOUND_NAME = "_SWIGLU_MXFP4_BF16_BOUND"

_CACHED = type(functools.lru_cache(lambda: None))


class SortReached(Exception):
    """AITER has decided and would sort the tokens now."""


class GroupedReached(Exception):
    """AITER would run the grouped kernels of gfx1250 now."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """Keep the arguments of the launch."""
        super().__init__()
        self.arguments = arguments


class Dispatch:
    """AITER's ``fused_moe`` on one GPU, watched."""

    def __init__(self, module: ModuleType) -> None:
        """Replace what follows the decision by a stop."""
        self.module = module
        self.choose = module.get_2stage_cfgs
        self.signature = inspect.signature(inspect.unwrap(self.choose))
        self.takes = inspect.signature(module.fused_moe).parameters
        self.decided: list[tuple[dict[str, Any], Any]] = []
        self.names = dtype_names()
        self.grouped = self._grouped_module()
        module.get_2stage_cfgs = self._watch  # type: ignore[attr-defined]
        for name in SORTS:
            if hasattr(module, name):
                setattr(module, name, _stop)

    def decide(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return what AITER does with a call."""
        self.decided.clear()
        frame.found.clear()
        if isinstance(self.choose, _CACHED):
            self.choose.cache_clear()
        _forget(self.module)
        if self.grouped is not None:
            _forget(self.grouped)
        try:
            with self._environment(call["env"]):
                self._run(call)
        except SortReached:
            return self._outcome(*self.decided[0])
        except GroupedReached as reached:
            return self._grouped_outcome(call, reached.arguments)
        except Exception as error:
            return {"error": type(error).__name__, "message": str(error)[:200], "source": self._row()}
        return {"error": "none", "message": "fused_moe ended without sorting tokens"}

    def _watch(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        made = self.choose(*args, **kwargs)
        self.decided.append((dict(bound.arguments), made))
        return made

    def _grouped_module(self) -> ModuleType | None:
        try:
            module = importlib.import_module(GROUPED)
        except ImportError:
            return None

        def launch(*_: Any, **arguments: Any) -> None:
            raise GroupedReached(arguments)

        if hasattr(module, LAUNCH):
            setattr(module, LAUNCH, launch)
        return module

    @contextmanager
    def _environment(self, variables: dict[str, str]) -> Iterator[None]:
        before = getattr(self.module, FIRST_BOUND_NAME, None)
        os.environ.update(variables)
        if before is not None and FIRST_BOUND in variables:
            setattr(self.module, FIRST_BOUND_NAME, int(variables[FIRST_BOUND]))
        try:
            yield
        finally:
            for name in variables:
                os.environ.pop(name, None)
            if before is not None:
                setattr(self.module, FIRST_BOUND_NAME, before)

    def _run(self, call: dict[str, Any]) -> None:
        kinds = {"uint8": torch.uint8, **{name: dtype for dtype, name in self.names.items()}}
        pack = {"fp4x2": 2, "i4x2": 2, "uint8": 2, "uint32": 8}.get(call["weight_dtype"], 1)
        experts, model, inter = call["expert"], call["model_dim"], call["inter_dim"]
        rows = inter * (2 if call["use_g1u1"] else 1)
        weights = [
            _empty(experts, rows, model // pack, dtype=kinds[call["weight_dtype"]]),
            _empty(experts, model, inter // pack, dtype=kinds[call["weight_dtype"]]),
        ]
        if call["is_shuffled"]:
            for weight in weights:
                weight.is_shuffled = True  # type: ignore[attr-defined]
        scaled = call["quant_type"] not in ("No",)
        options: dict[str, Any] = {
            "activation": ActivationType[call["activation"]],
            "quant_type": QuantType[call["quant_type"]],
            "doweight_stage1": call["doweight_stage1"],
            "expert_mask": _empty(experts, dtype=torch.int32) if call["ep"] else None,
            "w1_scale": _empty(experts, rows, max(1, model // 32), dtype=torch.uint8) if scaled else None,
            "w2_scale": _empty(experts, model, max(1, inter // 32), dtype=torch.uint8) if scaled else None,
            "hidden_pad": call["hidden_pad"],
            "intermediate_pad": call["intermediate_pad"],
        }
        if call["bias"]:
            options |= {"bias1": _empty(experts, rows, dtype=torch.float32)}
            options |= {"bias2": _empty(experts, model, dtype=torch.float32)}
        if "gate_mode" in self.takes:
            mode = type(self.takes["gate_mode"].default)
            options["gate_mode"] = mode(call["gate_mode"]) if mode is not str else call["gate_mode"]
        if hasattr(self.module, "is_flydsl_available"):
            vars(self.module)["is_flydsl_available"] = lambda: call["flydsl"]
        half = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[call["dtype"]]
        self.module.fused_moe(
            _empty(call["tokens"], model, dtype=half),
            *weights,
            _empty(call["tokens"], call["topk"], dtype=torch.float32),
            _empty(call["tokens"], call["topk"], dtype=torch.int32),
            **{name: value for name, value in options.items() if name in self.takes},
        )

    def _outcome(self, arguments: dict[str, Any], chosen: Any) -> dict[str, Any]:
        return {
            "error": None,
            "activation_dtype": self.names.get(arguments["q_dtype_a"], str(arguments["q_dtype_a"])),
            "padded_tokens": arguments["token"],
            "stage1": _stage(chosen.stage1),
            "stage2": _stage(chosen.stage2),
            "block_m": _whole(chosen.block_m),
            "ksplit": _whole(chosen.ksplit),
            "run_1stage": bool(chosen.run_1stage),
            "source": self._row(),
            "arguments": _layout_arguments(chosen.stage1),
        }

    def _grouped_outcome(self, call: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the outcome of the grouped path: its row decides tiles, and its names stand for the kernels."""
        row = self._grouped_row or {}
        names = [(row.get(name) or "").strip() for name in ("kernelName1", "kernelName2")]
        activation = {"fp4": "fp4x2", "a8w4": "fp8"}.get(arguments["data_format"], arguments["data_format"])
        return {
            "error": None,
            "activation_dtype": activation,
            "padded_tokens": getattr(self.grouped, "_get_padded_m", self.module.get_padded_M)(call["tokens"]),
            "stage1": ["grouped_gemm_gfx1250_a8w4", names[0]],
            "stage2": ["grouped_gemm_gfx1250_a8w4", names[1]],
            "block_m": _whole(arguments.get("tile_m", 64)),
            "ksplit": 0,
            "run_1stage": False,
            "source": row.get(frame.SOURCE),
            "arguments": {},
        }

    @property
    def _grouped_row(self) -> dict[str, Any] | None:
        """Return the row that the grouped path found last."""
        rows: dict[str, Any] | None = self.grouped_rows[-1] if self.grouped_rows else None
        return rows

    @property
    def grouped_rows(self) -> list[dict[str, Any] | None]:
        """Return what lookups in the grouped table found."""
        return getattr(self.grouped, "found_rows", [])

    def _row(self) -> str | None:
        return next((source for source in reversed(frame.found) if source is not None), None)


class LinesReached:
    """Lines of AITER's decision that ran, over all calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Watch one function and those inside it."""
        code = inspect.unwrap(function).__code__
        self.codes = {inner for inner in _codes(code) if inner.co_name not in ("MainFunc", "FinalFunc")}
        self.all = {line for inner in self.codes for _, _, line in inner.co_lines() if line}
        self.main = code
        self.reached: set[int] = set()
        self.last: int | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count lines inside the block."""
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter(self, entered: FrameType, event: str, _: Any) -> Any:
        return self._line if entered.f_code in self.codes else None

    def _line(self, entered: FrameType, event: str, _: Any) -> Any:
        self.reached.add(entered.f_lineno)
        if entered.f_code is self.main:
            self.last = entered.f_lineno
        return self._line


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _stop(*_: Any, **__: Any) -> None:
    raise SortReached


def _empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _forget(module: ModuleType) -> None:
    """Drop what functions remember of earlier calls, since the environment differs."""
    for value in vars(module).values():
        if isinstance(value, _CACHED):
            value.cache_clear()


def _stage(partial: Any) -> list[str] | None:
    if partial is None:
        return None
    keywords = getattr(partial, "keywords", {})
    name = next((keywords[key] for key in ("kernelName", "kernelName1", "kernelName2") if key in keywords), "")
    text = name if isinstance(name, str) and name not in ("Null", "nan") else ""
    return [getattr(partial, "func", partial).__name__, text]


def _layout_arguments(partial: Any) -> dict[str, Any]:
    keywords = getattr(partial, "keywords", {})
    return {name: keywords[name] for name in ("split_k", "post_activation_layout") if name in keywords}


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and math.isfinite(number) else number


def load(request: dict[str, Any], gfx: str, cu_num: int) -> Dispatch:
    """Return AITER's dispatch for one GPU."""
    GPU.gfx, GPU.cu_num = gfx, cu_num
    root, package, table, grouped = (Path(request[name]) for name in ("root", "package", "table", "grouped"))
    configs = SimpleNamespace(AITER_CONFIG_FMOE_FILE=str(table), AITER_CONFIG_GROUPED_FMOE_FILE=str(grouped))
    install_aiter(root, package, AITER_CONFIGS=configs, AITER_CONFIG_FMOE_FILE=str(table))
    pandas = ModuleType("pandas")
    pandas.read_csv = frame.read_csv  # type: ignore[attr-defined]
    sys.modules["pandas"] = pandas
    dispatch = Dispatch(importlib.import_module("aiter.fused_moe"))
    if dispatch.grouped is not None:
        _record_grouped(dispatch.grouped)
    return dispatch


def _record_grouped(module: Any) -> None:
    """Let the grouped path's lookup write down the row that it found."""
    module.found_rows, real = [], inspect.unwrap(module._find_grouped_config)
    launches = hasattr(module, LAUNCH)

    def find(**keys: Any) -> Any:
        row = real(**keys)
        module.found_rows.append(row)
        if not launches:  # before 0.1.19.post1 the path goes on in one function: it is stopped here
            format = "fp4" if "float4" in str(keys["q_dtype_a"]) else "a8w4"
            raise GroupedReached({"data_format": format, "tile_m": int((row or {}).get("tile_m") or 64)})
        return row

    module._find_grouped_config = find


def main(path: str) -> None:
    """Answer all calls of a request, one child per GPU."""
    request = read_request(path)
    for group in request["groups"]:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _answer(request, group)
                code = 0
            except BaseException as error:  # the process ends here, whatever it was
                AnswerFile(request["answers"]).write(failed=f"{type(error).__name__}: {error}"[:500], gfx=group["gfx"])
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            AnswerFile(request["answers"]).write(failed=f"ended by signal {os.WTERMSIG(status)}", gfx=group["gfx"])


def _answer(request: dict[str, Any], group: dict[str, Any]) -> None:
    answers = AnswerFile(request["answers"])
    dispatch = load(request, group["gfx"], group["cu_num"])
    lines = LinesReached(dispatch.choose)
    with lines.watched():
        for number, call in group["calls"]:
            lines.last = None
            outcome = dispatch.decide(call)
            answers.write(number=number, outcome=outcome, line=lines.last)
    answers.write(lines=sorted(lines.all), reached=sorted(lines.reached), gfx=group["gfx"])


if __name__ == "__main__":
    main(sys.argv[1])
