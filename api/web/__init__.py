"""HTTP building blocks: problems, access, tokens, logs, metrics."""
