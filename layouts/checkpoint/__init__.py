"""Read and write MoE layers as safetensors checkpoints."""
