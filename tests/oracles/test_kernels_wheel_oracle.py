"""AMD's wheel as the oracle, in process: its `fused_moe` runs on meta tensors until it would sort tokens."""

import csv
import importlib.util
import itertools
import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from preshuffle.registry.kernels import DispatchCall, KernelTables, dispatch

torch = pytest.importorskip("torch")

WHEEL = "0.1.7.post2.dev18"
ARCHS = {"gfx942": (80, 304), "gfx950": (256,), "gfx1250": (256,)}


def wheel_package() -> Path | None:
    """Return the wheel's `aiter` folder, None where it is not there."""
    override = os.environ.get("PRESHUFFLE_AITER_WHEEL_ROOT")
    try:
        root = Path(override) if override else Path(str(distribution("amd-aiter").locate_file("")))
    except PackageNotFoundError:
        return None
    package = root / "aiter"
    return package if (package / "fused_moe.py").is_file() else None


PACKAGE = wheel_package()
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="amd-aiter is not installed")


class SortReached(Exception):
    """AITER has decided and would sort the tokens now."""


class ActivationType(Enum):
    No = -1
    Silu = 0
    Gelu = 1
    Swiglu = 2


class QuantType(Enum):
    No = 0
    per_Tensor = 1
    per_Token = 2
    per_1x32 = 3
    per_1x128 = 4
    per_128x128 = 5


class Frame:
    """As much of a pandas data frame as AITER's table lookup uses."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.keys: list[str] = []

    def set_index(self, keys: list[str]) -> "Frame":
        self.keys = keys
        return self

    def to_dict(self, orient: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        assert orient == "index"
        return {tuple(row[key] for key in self.keys): row for row in self.rows}


def cell(text: str | None) -> Any:
    for kind in (int, float):
        try:
            return kind(text or "nan")
        except ValueError:
            continue
    return text


def read_csv(path: Path) -> Frame:
    with open(path, newline="", encoding="utf-8") as file:
        return Frame([{name: cell(text) for name, text in row.items()} for row in csv.DictReader(file)])


def named(name: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"{name} ran")

    function.__name__ = name
    return function


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    for key, value in content.items():
        setattr(made, key, value)
    return made


def dtypes(gfx: str) -> SimpleNamespace:
    fp8 = {"gfx942": torch.float8_e4m3fnuz, "gfx950": torch.float8_e4m3fn}.get(gfx, torch.uint8)
    return SimpleNamespace(
        fp8=fp8,
        fp16=torch.float16,
        bf16=torch.bfloat16,
        fp32=torch.float32,
        i8=torch.int8,
        i32=torch.int32,
        i4x2=torch.int4,
        fp4x2=torch.float4_e2m1fn_x2,
        fp8_e8m0=torch.float8_e8m0fnu,
    )


def stub_modules(package: Path, gfx: str, cu_num: int) -> dict[str, ModuleType]:
    kernels = ("fmoe", "fmoe_g1u1", "fmoe_int8_g1u0", "fmoe_fp8_blockscale_g1u1", "ck_moe_stage1_fwd")
    aiter = module(
        "aiter",
        ActivationType=ActivationType,
        QuantType=QuantType,
        dtypes=dtypes(gfx),
        get_hip_quant=named("quant"),
        logger=logging.getLogger("aiter-under-test"),
        ck_moe_stage2_fwd=named("ck_moe_stage2_fwd"),
        **{name: named(name) for name in kernels},
    )
    core = module(
        "aiter.jit.core",
        AITER_CONFIG_FMOE_FILE=str(package / "configs" / "tuned_fmoe.csv"),
        PY="python",
        bd_dir="",
        get_asm_dir=lambda: "",
        mp_lock=named("mp_lock"),
    )
    fp4_utils = module("aiter.utility.fp4_utils", moe_mxfp4_sort=named("moe_mxfp4_sort"))
    return {
        "pandas": module("pandas", read_csv=read_csv),
        "aiter": aiter,
        "aiter.jit": module("aiter.jit"),
        "aiter.jit.core": core,
        "aiter.jit.utils": module("aiter.jit.utils"),
        "aiter.jit.utils.chip_info": module(
            "aiter.jit.utils.chip_info", get_cu_num=lambda: cu_num, get_gfx=lambda: gfx
        ),
        "aiter.jit.utils.torch_guard": module(
            "aiter.jit.utils.torch_guard", torch_compile_guard=lambda **_: lambda function: function
        ),
        "aiter.utility": module("aiter.utility", fp4_utils=fp4_utils),
        "aiter.utility.fp4_utils": fp4_utils,
    }


@contextmanager
def replaced(modules: dict[str, ModuleType]) -> Iterator[None]:
    taken = {name for name in sys.modules if name.partition(".")[0] in ("aiter", "pandas")}
    before = {name: sys.modules.pop(name) for name in taken}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@dataclass
class Wheel:
    """AITER's own `fused_moe` for one architecture."""

    gfx: str
    cu_num: int
    fused_moe: ModuleType
    stubs: dict[str, ModuleType]

    def decide(self, call: DispatchCall) -> dict[str, Any]:
        decided: list[Any] = []
        choose = self.fused_moe.get_2stage_cfgs

        def watch(*args: Any) -> Any:
            decided.append((args, choose(*args)))
            return decided[0][1]

        def sort(*args: Any, **kwargs: Any) -> None:
            raise SortReached

        vars(self.fused_moe).update(get_2stage_cfgs=watch, moe_sorting=sort)
        try:
            with replaced(self.stubs):
                self._run(call)
        except SortReached:
            return self._outcome(*decided[0])
        except Exception as error:
            return {"error": type(error).__name__}
        finally:
            vars(self.fused_moe)["get_2stage_cfgs"] = choose
        raise AssertionError("fused_moe ended without sorting")

    def _run(self, call: DispatchCall) -> None:
        kinds = dtypes(self.gfx)
        dtype = getattr(kinds, call.weight_dtype)
        pack = 2 if call.weight_dtype == "fp4x2" else 1
        rows = call.inter_dim * (2 if call.use_g1u1 else 1)

        def empty(*shape: int, dtype: Any) -> Any:
            return torch.empty(shape, dtype=dtype, device="meta")

        self.fused_moe.fused_moe(
            empty(call.tokens, call.model_dim, dtype=getattr(kinds, call.dtype)),
            empty(call.expert, rows, call.model_dim // pack, dtype=dtype),
            empty(call.expert, call.model_dim, call.inter_dim // pack, dtype=dtype),
            empty(call.tokens, call.topk, dtype=torch.float32),
            empty(call.tokens, call.topk, dtype=torch.int32),
            activation=ActivationType[call.activation],
            quant_type=QuantType[call.quant_type],
            doweight_stage1=call.doweight_stage1,
        )

    def _outcome(self, args: tuple[Any, ...], metadata: Any) -> dict[str, Any]:
        names = {value: name for name, value in vars(dtypes(self.gfx)).items()}

        def stage(partial: Any) -> tuple[str, str] | None:
            if partial is None:
                return None
            name = partial.keywords.get("kernelName", "")
            return partial.func.__name__, name if isinstance(name, str) and name != "Null" else ""

        return {
            "error": None,
            "activation_dtype": names[args[6]],
            "padded_tokens": args[0],
            "stage1": stage(metadata.stage1),
            "stage2": stage(metadata.stage2),
            "block_m": metadata.block_m,
            "ksplit": metadata.ksplit,
            "run_1stage": bool(metadata.run_1stage),
        }


@pytest.fixture(scope="module", params=[(gfx, cu) for gfx, cus in ARCHS.items() for cu in cus], ids=str)
def wheel(request: pytest.FixtureRequest) -> Wheel:
    """Return the wheel's `fused_moe`, loaded for one architecture."""
    assert PACKAGE is not None
    gfx, cu_num = request.param
    stubs = stub_modules(PACKAGE, gfx, cu_num)
    spec = importlib.util.spec_from_file_location("aiter.fused_moe", PACKAGE / "fused_moe.py")
    assert spec is not None
    assert spec.loader is not None
    fused_moe = importlib.util.module_from_spec(spec)
    with replaced(stubs):
        spec.loader.exec_module(fused_moe)
    return Wheel(gfx, cu_num, fused_moe, stubs)


@pytest.fixture(scope="module")
def tables() -> KernelTables:
    """Return the wheel's own tables."""
    assert PACKAGE is not None
    return KernelTables.load([PACKAGE / "configs"], aiter=WHEEL)


def predicted(call: DispatchCall, tables: KernelTables) -> dict[str, Any]:
    choice = dispatch(call, tables)
    if choice.error is not None:
        return {"error": choice.error.partition(":")[0]}
    plain = ("error", "activation_dtype", "padded_tokens", "block_m", "ksplit", "run_1stage")
    return {name: getattr(choice, name) for name in plain} | {
        name: (stage.func, stage.kernel) if stage is not None else None
        for name, stage in (("stage1", choice.stage1), ("stage2", choice.stage2))
    }


def call_of(wheel: Wheel, **fields: Any) -> DispatchCall:
    return DispatchCall(gfx=wheel.gfx, cu_num=wheel.cu_num, aiter=WHEEL, **fields)


def tuned_calls(wheel: Wheel, tables: KernelTables) -> list[DispatchCall]:
    weights = {"torch.bfloat16": "bf16", "torch.int8": "i8"}
    return [
        call_of(
            wheel,
            tokens=token,
            model_dim=row.model_dim,
            inter_dim=row.inter_dim,
            expert=row.expert,
            topk=row.topk,
            activation=row.act_type.removeprefix("ActivationType."),
            weight_dtype=weights.get(row.q_dtype_w, "fp8"),
            quant_type=row.q_type.removeprefix("QuantType."),
            use_g1u1=bool(row.use_g1u1),
            doweight_stage1=bool(row.doweight_stage1),
        )
        for row in tables.rows
        if row.cu_num == wheel.cu_num
        for token in (row.token, max(1, row.token - 1))
    ]


def random_calls(wheel: Wheel, count: int) -> list[DispatchCall]:
    chosen = random.Random(20260822)
    fp8 = ["per_Tensor", "per_Token", "per_1x128"]
    quants = {"bf16": ["No"], "fp8": fp8, "i8": ["per_Token"], "fp4x2": ["per_1x32"]}
    calls = []
    for weight, activation in itertools.islice(
        itertools.cycle(itertools.product(quants, ("Silu", "Gelu", "Swiglu"))), count
    ):
        calls.append(
            call_of(
                wheel,
                tokens=chosen.choice([1, 15, 16, 17, 33, 64, 100, 255, 256, 1000, 1023, 1024, 4096, 20000]),
                model_dim=chosen.choice([2048, 4096, 7168]),
                inter_dim=chosen.choice([64, 128, 192, 256, 384, 1536, 2048]),
                expert=chosen.choice([8, 33, 128, 256]),
                topk=chosen.choice([1, 2, 8, 10]),
                activation=activation,
                weight_dtype=weight,
                quant_type=chosen.choice(quants[weight]),
                use_g1u1=chosen.random() < 0.8,
                doweight_stage1=chosen.random() < 0.3,
            )
        )
    return calls


def test_tuned_rows_are_answered_as_by_the_wheel(wheel: Wheel, tables: KernelTables) -> None:
    wrong = [
        (call, theirs, ours)
        for call in tuned_calls(wheel, tables)
        if (theirs := wheel.decide(call)) != (ours := predicted(call, tables))
    ]
    assert wrong == []


def test_untuned_shapes_are_answered_as_by_the_wheel(wheel: Wheel, tables: KernelTables) -> None:
    wrong = [
        (call, theirs, ours)
        for call in random_calls(wheel, 240)
        if (theirs := wheel.decide(call)) != (ours := predicted(call, tables))
    ]
    assert wrong == []
