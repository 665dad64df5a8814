"""Code that nodes get by value, with or without preshuffle there.

Standard library alone, and no module-level imports of this project.
"""

from __future__ import annotations

import os
import socket
from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class Expectation(NamedTuple):
    """What the driver has, and each node must have, too.

    Attributes:
        version: of preshuffle.
        book: digest of the packaged book.
        probe: file that the driver has written into the output's folder.
        content: what it holds.
        shards: the checkpoint's files with their sizes.
    """

    version: str
    book: str
    probe: str
    content: str
    shards: tuple[tuple[str, int], ...]


class NodeAnswer(NamedTuple):
    """What a node found.

    Attributes:
        host: its name.
        problems: what is not as it must be.
    """

    host: str
    problems: tuple[str, ...]


def check_node(expected: Expectation, answer: str | None = None) -> NodeAnswer:
    """Compare this node with the driver.

    Args:
        expected: what the driver has.
        answer: file that the node writes, so that the driver finds it.
    """
    problems = [*_installation_problems(expected), *_storage_problems(expected, answer)]
    return NodeAnswer(socket.gethostname(), tuple(problems))


def _installation_problems(expected: Expectation) -> list[str]:
    try:
        from preshuffle.layouts.loader import Job  # noqa: F401
        from preshuffle.registry import Registry

        version, book = metadata.version("preshuffle"), Registry.default().digest
    except Exception as error:
        return [f"preshuffle with the extra [layouts] is not installed there ({type(error).__name__}: {error})"]
    if version != expected.version:
        return [f"preshuffle {version} is installed there, {expected.version} here"]
    if book != expected.book:
        return [f"its preshuffle has another book: {book} there, {expected.book} here"]
    return []


def _storage_problems(expected: Expectation, answer: str | None) -> list[str]:
    problems = []
    probe = Path(expected.probe)
    folder = probe.parent.parent
    try:
        os.listdir(probe.parent)  # lets network file systems look anew
        if probe.read_text(encoding="utf-8") != expected.content:
            problems.append(f"{folder} is another folder there: shared storage is needed")
        elif answer is not None:
            Path(answer).write_text(expected.content, encoding="utf-8")
    except OSError as error:
        problems.append(f"{folder} is not there, or cannot be written: {error.strerror or error}")
    for path, size in expected.shards:
        try:
            found = os.stat(path).st_size
        except OSError as error:
            problems.append(f"{path} cannot be read there: {error.strerror or error}")
            break
        if found != size:
            problems.append(f"{path} has {found:,} bytes there, {size:,} here")
            break
    return problems
