"""The face of the text room stays cheap: the YAML parser is imported on first use."""

import subprocess
import sys

import preshuffle.registry.text as text


def test_yaml_is_imported_on_first_use() -> None:
    load = "import sys, preshuffle.registry.text as t"
    code = f"{load}; a = 'yaml' in sys.modules; t.parse_yaml; print(a, 'yaml' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]


def test_every_exported_name_is_there() -> None:
    assert all(hasattr(text, name) for name in text.__all__)
