"""Store of deployments, tables and history in SQLite or PostgreSQL."""
