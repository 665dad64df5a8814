"""Assembly kernels of fused MoE: how they are called, on small layers."""
