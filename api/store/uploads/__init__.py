"""Documents that operators upload: kernel tables and conformance reports."""
