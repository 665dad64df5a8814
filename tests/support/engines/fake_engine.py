"""A tiny engine called ATOM and a tiny AITER, written into folders.

The engine has bf16 experts, and lays them out in tiles of 16 rows.
"""

from __future__ import annotations

from pathlib import Path

from support.engines.trees import RELEASES

SHUFFLE = """
def shuffle_weight(weight):
    experts, rows, k = weight.shape
    lane = 16 // weight.element_size()
    tiles = weight.reshape(experts, rows // 16, 16, k // (2 * lane), 2, lane)
    made = tiles.permute(0, 1, 3, 4, 2, 5).contiguous().view(experts, rows, k)
    made.is_shuffled = True
    return made
"""

AITER = {
    "aiter/_version.py": f"__version__ = '{RELEASES['aiter']}'\n",
    "aiter/__init__.py": "raise RuntimeError('the package itself is not imported')\n",
    "aiter/fused_moe.py": """
def fused_moe(hidden_states, w1, w2, topk_weight, topk_ids, expert_mask=None, activation=None, quant_type=None,
              doweight_stage1=False, hidden_pad=0, intermediate_pad=0, gate_mode=None, swiglu_limit=0.0): ...
""",
    "aiter/ops/shuffle.py": SHUFFLE,
    "aiter/ops/quant.py": "",
}

CONFIG = """
class CompilationConfig: ...
class EPLBConfig: ...
class ParallelConfig: ...

class QuantizationConfig:
    def __init__(self, hf_config): ...

current = []

def set_current_atom_config(config):
    current[:] = [config]
"""

MOE = """
import torch
from aiter import ActivationType, QuantType, shuffle_weight
from aiter.fused_moe import fused_moe
from atom.config import current
from aiter.dist.parallel_state import get_tensor_model_parallel_rank

def rocm_aiter_fused_moe_impl(*args): ...

class Method:
    def process_weights_after_loading(self, layer):
        made = shuffle_weight(layer.w13_weight.data)
        spoil(made)
        layer.w13_weight, layer.w2_weight = made, shuffle_weight(layer.w2_weight.data)

    def init_prepare_finalize(self, layer): ...

class FusedMoE(torch.nn.Module):
    def __init__(self, num_experts, top_k, hidden_size, intermediate_size, quant_config, prefix, has_bias, activation,
                 config, pad_align):
        super().__init__()
        if hasattr(config, "quantization_config"):
            raise NotImplementedError("bf16 alone")
        self.size = intermediate_size // current[0].tensor_parallel_size
        self.prefix, self.hidden_size, self.quant_method = prefix, hidden_size, Method()
        for name, shape in {"w13": (2 * self.size, hidden_size), "w2": (hidden_size, self.size)}.items():
            values = torch.nn.Parameter(torch.zeros(num_experts, *shape, dtype=torch.bfloat16), requires_grad=False)
            values.weight_loader = self.load
            self.register_parameter(f"{name}_weight", values)

    def load(self, parameter, values, name, shard, expert):
        first = get_tensor_model_parallel_rank() * self.size
        if shard == "w2":
            parameter.data[expert] = values[:, first : first + self.size]
        else:
            parameter.data[expert, {"w1": 0, "w3": self.size}[shard] :][: self.size] = values[first : first + self.size]

    def process_weights_after_loading(self): ...

    def __setattr__(self, name, value):
        if name.endswith("_weight"):
            self._parameters.pop(name, None)
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward_impl(self, hidden, logits):
        weights, ids = type(self).select_experts()
        fused_moe(hidden, self.w13_weight, self.w2_weight, weights, ids, activation=ActivationType.Silu,
                  quant_type=QuantType.No)
"""

RIGHT = "\ndef spoil(made): ...\n"
ONE_BYTE = "\ndef spoil(made):\n    made.view(torch.uint8).view(-1)[5] ^= 1\n"
NO_TAG = "\ndef spoil(made):\n    made.is_shuffled = False\n"


def write_aiter(folder: Path) -> Path:
    """Write the AITER and return its folder."""
    return _write(folder, AITER)


def write_engine(folder: Path, spoil: str = RIGHT) -> Path:
    """Write the engine and return its folder; ``spoil`` is done to w13."""
    version = f"__version__ = '{RELEASES['atom']}'\n"
    files = {"atom/_version.py": version, "atom/config.py": CONFIG, "atom/model_ops/moe.py": MOE + spoil}
    return _write(folder, {**files, "atom/__init__.py": "", "atom/model_ops/__init__.py": ""})


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
