"""Move bytes between layouts: PyTorch and Triton executors."""
