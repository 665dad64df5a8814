"""Words, errors, versions and frozen models that everything else uses."""
