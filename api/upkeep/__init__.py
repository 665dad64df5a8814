"""Background work: reload files, expire replicas, check again."""
