"""HTTP service as a child process, its databases, tokens and container."""
