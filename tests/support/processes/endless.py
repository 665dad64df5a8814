"""A search that never ends, in the process whose id it writes down."""

import os
import re


def search() -> None:
    with open(os.environ["ENDLESS_PID"], "w") as file:
        file.write(str(os.getpid()))
    re.match(r"(\w+\w+)+!$", "a" * 60)
