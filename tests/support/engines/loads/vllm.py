"""A model of a few MoE layers, loaded by vLLM's own model loader."""

from __future__ import annotations

from typing import Any

import torch

from support.engines.loads.model import Model, load_layers


def load_plugins() -> None:
    """Load plugins as every process of vLLM does at its start."""
    from vllm.plugins import load_general_plugins

    load_general_plugins()


def load_model(model: Model) -> Model:
    """Load as a worker does, by a loader that is registered for a format of its own."""
    from vllm.config import get_current_vllm_config
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader, register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    @register_model_loader("random_experts")
    class Loader(BaseModelLoader):  # type: ignore[misc]
        def download_model(self, model_config: Any) -> None: ...

        def create_model(self, *_: Any, **__: Any) -> torch.nn.Module:
            return model.create()

        def load_weights(self, model: torch.nn.Module, model_config: Any) -> None:
            load_layers(model)

    config = get_current_vllm_config()
    config.load_config = LoadConfig(load_format="random_experts", device="cpu")
    config.model_config.model = model.cases[0].model
    config.model_config.quantization, config.model_config.word_embeddings_untied_by_checkpoint = None, False
    loaded: Model = get_model_loader(config.load_config).load_model(config, config.model_config)
    return loaded


def set_stage(group: Any) -> None:
    """Let vLLM have this group of pipeline stages."""
    import vllm.distributed.parallel_state as state

    state._PP = group


def name_layer(layer: Any, number: int) -> None:
    """Give a layer its place in the model."""
    layer.layer_name = f"model.layers.{number}.mlp.experts"


def spoil_calls(model: Model) -> None:
    """Let vLLM's operator pass the other gate_mode."""
    operator = torch.ops.vllm.rocm_aiter_fused_moe

    def other(*args: Any) -> Any:
        modes = {"separated": "interleave", "interleave": "separated", "": "interleave"}
        return operator(*(modes.get(one, one) if isinstance(one, str) else one for one in args))

    torch.ops.vllm.rocm_aiter_fused_moe = other  # type: ignore[attr-defined]
