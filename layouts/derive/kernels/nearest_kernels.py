"""Nearest kernel names of an AITER, for names that it has not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path

from preshuffle.layouts.derive.kernels.kernel_files import ARCHS, FOLDERS

_BEST = 3
_CLOSELY = 24
"""Names whose letters are compared in order; the others share fewer parts."""
_ALIKE = 0.6
_NAME = re.compile(r"flydsl_\w+")
_LONGEST = 200


def did_you_mean(kernel: str, root: Path, archs: Iterable[str] = ARCHS) -> str:
    """Return a message's end that names the nearest kernels; else nothing.

    Args:
        kernel: the unknown name.
        root: folder of the checkout, unpacked wheel or installed package.
        archs: GPUs whose code objects count.
    """
    close = nearest(kernel, {*code_objects(root, archs), *table_names(root)})
    return f"; did you mean {' or '.join(close)}?" if close else ""


def nearest(kernel: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the closest kernel names, at most three.

    Names share long beginnings, so that their parts between underscores count first.

    Example:
        >>> nearest("flydsl_moe1_afp4_wfp4_t32", ["flydsl_moe1_afp4_wfp4_bf16_t32", "fmoe_bf16_silu"])
        ('flydsl_moe1_afp4_wfp4_bf16_t32',)
    """
    if len(kernel) > _LONGEST:
        return ()
    parts = set(kernel.split("_"))
    names = sorted(known, key=lambda name: (-len(parts & set(name.split("_"))), abs(len(name) - len(kernel)), name))
    matcher = SequenceMatcher(b=kernel, autojunk=False)
    found: list[tuple[float, str]] = []
    for name in names[:_CLOSELY]:
        matcher.set_seq1(name)
        found.append((-matcher.ratio(), name))
    return tuple(name for ratio, name in sorted(found)[:_BEST] if -ratio >= _ALIKE)


def code_objects(root: Path, archs: Iterable[str]) -> set[str]:
    """Return the stems of an AITER's code objects."""
    folders = [root / folder / arch for folder in FOLDERS for arch in archs]
    return {path.stem for folder in folders for path in folder.rglob("*.co")}


def table_names(root: Path) -> set[str]:
    """Return the FlyDSL kernels that an AITER's tables name."""
    tables = [path for top in ("aiter", "aiter_meta") for path in (root / top).rglob("*fmoe*.csv")]
    return {name for path in tables for name in _NAME.findall(path.read_text(encoding="utf-8", errors="replace"))}
