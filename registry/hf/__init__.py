"""Read Hugging Face ``config.json`` files and quantization sections."""

from preshuffle.registry.hf.checkpoint_names import Tensors, checkpoint_tensors
from preshuffle.registry.hf.config import query_fields, query_of, unread_notes
from preshuffle.registry.hf.model_types import language_model, model_type_of
from preshuffle.registry.hf.moe_layers import layers_of, moe_layers_of, number_of
from preshuffle.registry.hf.quantization import ExpertsReader, method_of
from preshuffle.registry.hf.read_config import read_config

__all__ = [
    "ExpertsReader",
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
