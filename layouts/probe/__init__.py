"""Run a golden layer through a kernel and compare the result."""
