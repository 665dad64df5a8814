"""Runs that write laid-out checkpoints: plan, units of work, threads."""
