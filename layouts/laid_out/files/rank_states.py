"""Index of a rank's files, and the states their run left.

An attribute of the rank's index remembers them. Files in these states were not written since, on this machine or
another one that mounts the folder, so that no sample of their bytes need be compared. A copy of the folder has no such
attribute, and neither has one that several runs have written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from preshuffle.layouts.laid_out.files.manifest import FileRecord
from preshuffle.layouts.laid_out.files.tensor_writer import write_changed
from preshuffle.layouts.stamps import FileState, remember_states, remembers_states, state_of_file


def write_rank_index(
    out: Path,
    rank: tuple[int | None, int | None],
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
    write_changed(path, index_of((*own, *others)))
    if states:
        remember_states(path, states)


def states_as_written(
    out: Path, rank: tuple[int | None, int | None], own: Iterable[FileRecord]
) -> dict[str, FileState]:
    """Return the states of a rank's files, by name.

    None of them if one is not in the state in which it was left, or if nobody remembers.
    """
    try:
        states = {one.file: state_of_file(out / one.file) for one in own}
    except OSError:  # is said where the file is read
        return {}
    return states if remembers_states(out / rank_index(*rank), states) else {}


def rank_index(tp_rank: int | None, ep_rank: int | None) -> str:
    """Return the name of a rank's index."""
    return f"rank-tp{tp_rank}-ep{ep_rank}.safetensors.index.json"


def index_of(files: Iterable[FileRecord]) -> bytes:
    """Return the index of files, in Hugging Face's form."""
    listed = list(files)
    weight_map = {tensor.name: one.file for one in listed for tensor in one.tensors}
    size = sum(tensor.nbytes for one in listed for tensor in one.tensors)
    return json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}, indent=1).encode()
