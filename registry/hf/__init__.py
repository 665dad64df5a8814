"""Read Hugging Face ``config.json`` files and quantization sections."""

from preshuffle.registry.hf.checkpoint_names import Tensors, checkpoint_tensors
from preshuffle.registry.hf.config import query_fields, query_of, read_config, unread_notes
from preshuffle.registry.hf.model_types import language_model, model_type_of
from preshuffle.registry.hf.moe_layers import layers_of, moe_layers_of, number_of
from preshuffle.registry.hf.quantization import method_of

__all__ = [
    "Tensors",
    "checkpoint_tensors",
    "language_model",
    "layers_of",
    "method_of",
    "model_type_of",
    "moe_layers_of",
    "number_of",
    "query_fields",
    "query_of",
    "read_config",
    "unread_notes",
]
