"""Rooms of the source tree and the rules of who imports whom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.source.import_graph import Import
from support.source.modules import SourceModule

Order = Mapping[str, tuple[str | tuple[str, ...], ...]]
"""By top folder: its rooms, the lowest first; rooms of one tuple are neighbours. "" are the folder's own modules."""


@dataclass(frozen=True, slots=True)
class Room:
    """A folder below a top folder, the top folder's own modules (name ""), or a module that is a room by itself."""

    top: str
    name: str

    @property
    def face(self) -> str:
        """Return the module that other rooms import it by."""
        return f"preshuffle.{self.top}.{self.name}".removesuffix(".")


def room_of(module: SourceModule, order: Order) -> Room:
    """Return the room that holds a module.

    A module beside the rooms belongs to the room "" unless the order lists it by its own name.
    """
    parts = module.name.split(".")[1:]
    if len(parts) == 1:
        return Room(parts[0], "")
    is_folder = len(module.path.parts) > 2
    listed = any(parts[1] in names_of(row) for row in order[parts[0]])
    return Room(parts[0], parts[1] if is_folder or listed else "")


def names_of(row: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the rooms of one row of an order."""
    return (row,) if isinstance(row, str) else row


def against_order(imports: list[Import], order: Order) -> Iterator[str]:
    """Yield imports that run from a lower room to a higher one or to a neighbour, and rooms without a row."""
    rows = {Room(top, name): row for top in order for row, names in enumerate(order[top]) for name in names_of(names)}
    for each in imports:
        importer, imported = room_of(each.importer, order), room_of(each.imported, order)
        if importer == imported or importer.top != imported.top:
            continue
        missing = [room.face for room in (importer, imported) if room not in rows]
        if missing:
            yield f"{each}: the order has no row for {' and '.join(missing)}"
        elif rows[importer] <= rows[imported]:
            yield f"{each}: {importer.name or importer.top} is below or beside {imported.name or imported.top}"


def past_the_face(imports: list[Import], order: Order, open_rooms: set[str], of_modules: set[str]) -> Iterator[str]:
    """Yield imports of another room's module where that room's face should be used.

    Args:
        imports: the graph.
        order: the rooms.
        open_rooms: faces of rooms whose modules everybody may import.
        of_modules: faces of rooms that offer their modules as module objects.
    """
    for each in imports:
        importer, imported = room_of(each.importer, order), room_of(each.imported, order)
        face = imported.face
        if importer == imported or each.imported.name == face or face in open_rooms:
            continue
        if not (face in of_modules and each.as_module):
            yield f"{each}: {face} is its face"


def full_folders(paths: list[Path], most: int) -> dict[str, int]:
    """Return the folders that hold more modules than allowed (``__init__`` not counted)."""
    counts = Counter(str(path.parent) for path in paths if path.name != "__init__.py")
    return {folder: count for folder, count in counts.items() if count > most}


def classes_named_twice(modules: Mapping[str, SourceModule]) -> dict[str, list[str]]:
    """Return the public class names that two modules of one top folder define, as ``registry: Rule``."""
    homes = defaultdict(list)
    for module in modules.values():
        for name in module.public_classes():
            homes[f"{module.path.parts[0]}: {name}"].append(module.name)
    return {name: found for name, found in homes.items() if len(found) > 1}


def shadowed_names(modules: Mapping[str, SourceModule]) -> Iterator[str]:
    """Yield names that a package defines itself and that importing its submodule of that name would replace."""
    for module in modules.values():
        if module.is_package:
            for name in sorted(module.defined_names()):
                if f"{module.name}.{name}" in modules:
                    yield f"{module.path}: {name} is also a submodule"
