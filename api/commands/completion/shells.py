"""Words as shells pass them, and candidates as shells take them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from preshuffle.api.commands.completion.candidates import candidates
from preshuffle.api.commands.completion.values import Completion

_BREAKS: Final = frozenset("=@:")
"""Characters at which bash cuts a word into several (``COMP_WORDBREAKS``)."""


def completion_lines(shell: str, words: Sequence[str]) -> list[str]:
    """Return the lines that a shell's script reads.

    bash and tcsh take values alone, zsh and fish ``VALUE<tab>HELP``.

    Args:
        shell: one of ``SCRIPTS``.
        words: behind ``preshuffle``, up to the cursor, the current one last; for tcsh the whole line as one word.
    """
    if shell == "tcsh":
        words = _split_line(words[0] if words else "")
    joined = join_broken(words) if shell == "bash" else list(words) or [""]
    found = [one for one in candidates(joined) if not set(one.value) & set(" \t\n")]
    if shell == "bash":
        kept = words[-1] if words and not set(words[-1]) <= _BREAKS else ""
        start = len(joined[-1]) - len(kept)
        return [one.value[start:] for one in found]
    return [one.value if shell == "tcsh" else _with_help(one) for one in found]


def join_broken(words: Sequence[str]) -> list[str]:
    """Join words that bash has cut at ``=``, ``@`` or ``:``.

    Example:
        >>> join_broken(["resolve", "--engine", "vllm", "@", "0.3"])
        ['resolve', '--engine', 'vllm@0.3']
    """
    joined: list[str] = []
    glue = False
    for word in words or [""]:
        broken = bool(word) and set(word) <= _BREAKS
        if joined and (broken or glue):
            joined[-1] += word
        else:
            joined.append(word)
        glue = broken
    return joined


def _split_line(line: str) -> list[str]:
    """Return the words behind ``preshuffle`` of a line; an empty last one behind a space."""
    try:
        words = shlex.split(line)[1:]
    except ValueError:  # a quote is open
        words = line.split()[1:]
    return [*words, ""] if not words or line.endswith(" ") else words


def _with_help(candidate: Completion) -> str:
    return f"{candidate.value}\t{' '.join(candidate.help.split())}"
