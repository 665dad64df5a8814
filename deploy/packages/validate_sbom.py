"""Validates a CycloneDX document against its schema; run by the Python that has cyclonedx-bom."""

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

if __name__ == "__main__":
    for name in sys.argv[1:]:
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(name).read_text(encoding="utf-8"))
        if error is not None:
            sys.exit(f"{name} is not valid CycloneDX 1.6: {error}")
        print(f"{name} is valid CycloneDX 1.6")
