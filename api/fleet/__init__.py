"""Deployments, replicas and their judgement; no web, no store."""
