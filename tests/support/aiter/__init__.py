"""AITER's own code without ROCm, and stand-ins for it."""
