"""Deployment as observed: its layer, the calls it may make, and the kernels that follow."""
