"""The command line as a module: ``python -m preshuffle``."""

import sys

from preshuffle.api.cli import process

if __name__ == "__main__":
    sys.exit(process())
