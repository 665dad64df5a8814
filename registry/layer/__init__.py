"""What one MoE layer is: switches, AITER features, shared experts."""
