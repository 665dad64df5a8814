"""Commands on whole checkpoints: apply, verify, convert and restore."""
