"""Kernel tables made up for a test: rows of AITER's columns, as bytes and as files."""

from pathlib import Path
from typing import Any

from preshuffle.registry.kernels import DispatchCall, KernelTables

OLD = (
    "cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,use_g1u1,doweight_stage1,"
    "block_m,ksplit,us1,kernelName1,err1,us2,kernelName2,err2,us,run_1stage,tflops,bw"
)
NEW = f"gfx,{OLD.removesuffix(',tflops,bw')},xbf16,flat,tflops,bw,_tag"
CK1 = "moe_ck2stages_gemm1_256x32x64x64_1x4_TypeCast_v1_Nswizzle0_Quant0_MulRoutedWeight0_silu_B16_B16_B16"
CK2 = "moe_ck2stages_gemm2_256x32x64x64_1x4_TypeCastExpertWeight_v1_Nswizzle0_Quant0_MulRoutedWeight1_B16_B16_B16"
ONE = "_ZN5aiter48fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_32x256E"

BASE = {
    "gfx": "gfx942", "cu_num": "304", "token": "64", "model_dim": "4096", "inter_dim": "512", "expert": "64",
    "topk": "4", "act_type": "ActivationType.Silu", "dtype": "torch.bfloat16", "q_dtype_a": "torch.bfloat16",
    "q_dtype_w": "torch.bfloat16", "q_type": "QuantType.No", "use_g1u1": "1", "doweight_stage1": "0",
    "block_m": "32", "ksplit": "0", "us1": "1.0", "kernelName1": CK1, "err1": "0.0%", "us2": "1.0",
    "kernelName2": CK2, "err2": "0.0%", "us": "2.0", "run_1stage": "0", "xbf16": "0", "flat": "0",
    "tflops": "1", "bw": "1", "_tag": "",
}  # fmt: skip


def table(*rows: dict[str, str], header: str = NEW) -> bytes:
    columns = header.split(",")
    lines = [",".join((BASE | row)[column] for column in columns) for row in rows]
    return "\n".join([header, *lines, ""]).encode()


def tables(*files: bytes, aiter: str | None = None) -> KernelTables:
    return KernelTables.from_bytes({f"t{index}.csv": data for index, data in enumerate(files)}, aiter=aiter)


def call(**fields: object) -> DispatchCall:
    base = {
        "gfx": "gfx942", "cu_num": 304, "tokens": 64, "model_dim": 4096, "inter_dim": 512, "expert": 64, "topk": 4,
        "activation": "Silu", "weight_dtype": "bf16", "quant_type": "No",
    }  # fmt: skip
    return DispatchCall.model_validate(base | fields)


MX: dict[str, Any] = {
    "gfx": "gfx950", "cu_num": 256, "tokens": 1, "model_dim": 3072, "inter_dim": 3072, "expert": 128, "topk": 4,
    "activation": "Swiglu", "weight_dtype": "fp4x2", "quant_type": "per_1x32",
}  # fmt: skip
SWIGLU = {
    "gfx": "gfx950", "cu_num": "256", "model_dim": "3072", "inter_dim": "3072", "expert": "128", "topk": "4",
    "act_type": "ActivationType.Swiglu", "q_dtype_a": "torch.float4_e2m1fn_x2", "q_type": "QuantType.per_1x32",
    "q_dtype_w": "torch.float4_e2m1fn_x2", "kernelName2": "flydsl_moe2_afp4_wfp4_bf16_t32x128x256_atomic_bnt2",
}  # fmt: skip
SEP = "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w2"
GUI = "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w2_gui"


def write(folder: Path, *rows: dict[str, str]) -> Path:
    folder.mkdir()
    (folder / "tuned_fmoe.csv").write_bytes(table(*({**BASE, **SWIGLU, **row} for row in rows)))
    return folder
