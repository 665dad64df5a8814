"""Plans of copies: tensors that are left or kept as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from preshuffle.layouts.checkpoint import MappedShards
from preshuffle.layouts.laid_out.files.manifest import FileRecord
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan, why_joined

Keep = Literal["scales", "all", "none"]
"""Which of the experts' tensors are kept as they are, where laid-out bytes do not restore them."""
KEPT: Final = "kept"
"""What the names of their files begin with."""


def other_files(plan: RunPlan, shards: MappedShards) -> list[OtherFile]:
    """Plan the copies of tensors that no unit reads."""
    read = {name for layer in plan.layers for name in plan.names_of(layer)}
    names = {
        path: {name for name in shards.header(path).entries if name not in read}
        for path in sorted(set(plan.checkpoint.shards.values()))
    }
    return _files_of("others", {path: some for path, some in names.items() if some}, shards)


def kept_files(plan: RunPlan, records: Iterable[FileRecord], shards: MappedShards, keep: Keep) -> list[OtherFile]:
    """Plan the copies of experts' tensors that laid-out bytes do not restore."""
    roles = {
        (record.layer, tensor.role)
        for record in records
        if record.layer is not None and keep != "none"
        for tensor in record.tensors
        if tensor.role is not None
        and (tensor.lost or why_joined(tensor.role, plan.layers[record.layer][0].entries[tensor.role]))
        and (keep == "all" or not tensor.role.endswith("_weight"))
    }
    names: dict[Path, set[str]] = {}
    for layer, role in roles:
        for name in plan.names_of_role(layer, role):
            names.setdefault(plan.checkpoint.shards[name], set()).add(name)
    return _files_of(KEPT, dict(sorted(names.items())), shards)


def _files_of(kind: str, chosen: Mapping[Path, set[str]], shards: MappedShards) -> list[OtherFile]:
    return [
        OtherFile.of(kind, number, len(chosen), shards.header(path), names)
        for number, (path, names) in enumerate(chosen.items(), start=1)
    ]
