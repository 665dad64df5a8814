"""States of a rank's files, as their run left them.

An attribute of the rank's index remembers them. Files in these states were not written since, on this machine or
another one that mounts the folder, so that no sample of their bytes need be compared. A copy of the folder has no such
attribute, and neither has one that several runs have written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from preshuffle.layouts.laid_out.files.manifest import FileRecord, index_of, rank_index
from preshuffle.layouts.laid_out.files.tensor_writer import write_whole
from preshuffle.layouts.stamps import FileState, remember_states, remembers_states, state_of_file


def write_rank_index(
    out: Path,
    rank: tuple[int, int],
    own: Iterable[FileRecord],
    others: Iterable[FileRecord],
    written: Mapping[str, FileState],
) -> None:
    """Write a rank's index; remember its files' states.

    Args:
        out: the folder.
        rank: ``(tp_rank, ep_rank)``.
        own: the rank's files.
        others: files of all ranks.
        written: states of the files that this run wrote, by name.

    Raises:
        LaidOutError: it cannot be written.
    """
    own = list(own)
    states = {one.file: written[one.file] for one in own if one.file in written}
    if len(states) < len(own):  # some were there before: all are as an earlier run left them, or nobody knows
        states = states_as_written(out, rank, own)
    path = out / rank_index(*rank)
    write_whole(path, index_of((*own, *others)))
    if states:
        remember_states(path, states)


def states_as_written(out: Path, rank: tuple[int, int], own: Iterable[FileRecord]) -> dict[str, FileState]:
    """Return the states of a rank's files, by name.

    None of them if one is not in the state in which it was left, or if nobody remembers.
    """
    try:
        states = {one.file: state_of_file(out / one.file) for one in own}
    except OSError:  # is said where the file is read
        return {}
    return states if remembers_states(out / rank_index(*rank), states) else {}
