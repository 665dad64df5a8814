"""Deployment as observed: its layer, possible calls and kernel runs."""
