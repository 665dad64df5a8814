"""Public values: query, decision, finding, observation, report."""
