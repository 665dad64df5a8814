"""What a deployment did: its layer, possible calls, kernels and bytes."""
