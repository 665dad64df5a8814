"""A file that was changed keeps no stamp of other bytes, and another name does not lose it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import torch

from preshuffle.layouts import apply, expert_view, inverse, stamp_of, write_expert
from preshuffle.registry import LayoutError
from support.tensors.moe import plain_tensors
from support.tensors.padded_layer import DECISION, Tensors, own_storage_layer

WEIGHT: Final = "w13_weight"


def mapped(folder: Path, *, shared: bool = True) -> Tensors:
    return {
        role: torch.from_file(str(folder / role), shared=shared, size=tensor.numel(), dtype=tensor.dtype).view(
            tensor.shape
        )
        for role, tensor in own_storage_layer().items()
    }


def data(tensor: torch.Tensor) -> bytes:
    return tensor.view(torch.uint8).numpy().tobytes()


def laid_files(folder: Path) -> Tensors:
    for role, tensor in own_storage_layer().items():
        (folder / role).write_bytes(data(tensor))
    apply(tensors := mapped(folder), DECISION)
    return tensors


def write_over(path: Path, plain: bytes) -> None:
    with path.open("r+b") as file:
        file.write(plain)


def create_again(path: Path, plain: bytes) -> None:
    path.unlink()
    path.write_bytes(plain)


def replace_atomically(path: Path, plain: bytes) -> None:
    draft = path.with_name("draft")
    draft.write_bytes(plain)
    os.replace(draft, path)


def keep_times(change: Callable[[Path, bytes], None]) -> Callable[[Path, bytes], None]:
    def changed(path: Path, plain: bytes) -> None:
        before = path.stat()
        change(path, plain)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return changed


def through_a_link(path: Path, plain: bytes) -> None:
    os.link(path, path.with_name("link"))
    write_over(path.with_name("link"), plain)


def through_a_mapping(path: Path, plain: bytes) -> None:
    torch.from_file(str(path), shared=True, size=len(plain), dtype=torch.uint8).copy_(
        torch.frombuffer(bytearray(plain), dtype=torch.uint8)
    )


def move_over(path: Path, plain: bytes) -> None:
    path.with_name("new").write_bytes(plain)
    shutil.move(path.with_name("new"), path)


CHANGES: dict[str, Callable[[Path, bytes], object]] = {
    "written over": write_over,
    "truncated and written": lambda path, plain: path.write_bytes(plain),
    "created again": create_again,
    "replaced": replace_atomically,
    "written over, times kept": keep_times(write_over),
    "created again, times kept": keep_times(create_again),
    "through a hard link": through_a_link,
    "through a mapping": through_a_mapping,
    "one expert": lambda path, plain: write_over(path, plain[: len(plain) // 4]),
    "cut": lambda path, plain: os.truncate(path, len(plain) // 2),
    "moved over": move_over,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("still_mapped", [True, False], ids=["mapped", "mapped anew"])
def test_a_changed_file_keeps_no_stamp(
    change: Callable[[Path, bytes], object], still_mapped: bool, tmp_path: Path
) -> None:
    tensors = laid_files(tmp_path)
    if not still_mapped:
        del tensors
    change(tmp_path / WEIGHT, data(own_storage_layer()[WEIGHT]))
    size = (tmp_path / WEIGHT).stat().st_size
    with pytest.raises(LayoutError, match=r"w13_weight\.preshuffle does not match the bytes"):
        stamp_of(torch.from_file(str(tmp_path / WEIGHT), shared=True, size=size, dtype=torch.uint8))


def renamed(folder: Path) -> Path:
    os.rename(folder / WEIGHT, folder / "renamed")
    return folder / "renamed"


def linked(folder: Path) -> Path:
    os.link(folder / WEIGHT, folder / "linked")
    return folder / "linked"


def elsewhere(folder: Path) -> Path:
    (folder / "sub").mkdir()
    os.link(folder / WEIGHT, folder / "sub" / "linked")
    return folder / "sub" / "linked"


def copied(folder: Path) -> Path:
    shutil.copy2(folder / WEIGHT, folder / "copied")
    shutil.copy(folder / f"{WEIGHT}.preshuffle", folder / "copied.preshuffle")
    return folder / "copied"


@pytest.mark.parametrize("name", [renamed, linked, elsewhere, copied])
def test_another_name_leads_to_the_stamp(name: Callable[[Path], Path], tmp_path: Path) -> None:
    laid_files(tmp_path)
    path = name(tmp_path)
    plain = own_storage_layer()[WEIGHT]
    other = torch.from_file(str(path), shared=True, size=plain.numel(), dtype=torch.uint8).view(plain.shape)
    stamp = stamp_of(other)
    assert stamp is not None
    assert stamp.layout == "sep16"
    with pytest.raises(LayoutError, match="w13_weight is laid out already"):
        apply({**own_storage_layer(), WEIGHT: other}, DECISION)
    target = {**mapped_rest(tmp_path), WEIGHT: other}
    inverse(target, DECISION)
    assert target[WEIGHT].equal(plain)
    assert stamp_of(other) is None


def mapped_rest(folder: Path) -> Tensors:
    return {
        role: torch.from_file(str(folder / role), shared=True, size=tensor.numel(), dtype=tensor.dtype).view(
            tensor.shape
        )
        for role, tensor in own_storage_layer().items()
        if role != WEIGHT
    }


def test_a_copy_has_a_record_of_its_own(tmp_path: Path) -> None:
    laid_files(tmp_path)
    shutil.copy2(tmp_path / WEIGHT, tmp_path / "copied")  # with its attributes, but without its record
    plain = own_storage_layer()[WEIGHT]
    other = torch.from_file(str(tmp_path / "copied"), shared=True, size=plain.numel(), dtype=torch.uint8)
    shutil.copytree(tmp_path, rest := tmp_path.parent / f"{tmp_path.name}-rest")
    inverse({**mapped_rest(rest), WEIGHT: other.view(plain.shape)}, DECISION)
    assert stamp_of(other) is None
    assert stamp_of(mapped(tmp_path)[WEIGHT]) is not None
    assert other.view(plain.shape).equal(plain)


def moved_alone(folder: Path) -> Path:
    (folder / "sub").mkdir()
    os.rename(folder / WEIGHT, folder / "sub" / WEIGHT)
    (folder / f"{WEIGHT}.preshuffle").unlink()
    return folder / "sub" / WEIGHT


def copied_and_inverted(folder: Path) -> Path:
    shutil.copy2(folder / WEIGHT, folder / "copied")
    inverse({**mapped(folder)})
    return folder / "copied"


@pytest.mark.parametrize("lose", [moved_alone, copied_and_inverted])
def test_a_file_whose_record_is_gone_is_not_taken_for_plain(lose: Callable[[Path], Path], tmp_path: Path) -> None:
    laid_files(tmp_path)
    path = lose(tmp_path)
    plain = own_storage_layer()[WEIGHT]
    other = torch.from_file(str(path), shared=True, size=plain.numel(), dtype=torch.uint8).view(plain.shape)
    for use in (lambda: stamp_of(other), lambda: apply({**own_storage_layer(), WEIGHT: other}, DECISION)):
        with pytest.raises(LayoutError, match="whether its bytes are plain or laid out is unknown"):
            use()
    os.removexattr(path, "user.preshuffle.record")
    assert stamp_of(other) is None


def test_a_record_that_was_removed_says_that_the_file_was_rewritten(tmp_path: Path) -> None:
    laid_files(tmp_path)
    write_over(tmp_path / WEIGHT, data(own_storage_layer()[WEIGHT]))
    (tmp_path / f"{WEIGHT}.preshuffle").unlink()
    assert stamp_of(mapped(tmp_path)[WEIGHT]) is None


def test_a_private_mapping_that_was_changed_claims_nothing(tmp_path: Path) -> None:
    laid_files(tmp_path)
    private = mapped(tmp_path, shared=False)
    private[WEIGHT].copy_(own_storage_layer()[WEIGHT])
    stamp = stamp_of(private[WEIGHT])
    assert stamp is not None
    assert stamp.state == "unknown"


def test_the_product_keeps_records_true(tmp_path: Path) -> None:
    tensors = laid_files(tmp_path)
    fresh = plain_tensors(DECISION, seed=3)[WEIGHT]
    write_expert(tensors, 1, WEIGHT, fresh[0])
    expert_view(tensors, WEIGHT, 2).view(torch.uint8).copy_(expert_view(tensors, WEIGHT, 1).view(torch.uint8))
    for seen in (tensors, mapped(tmp_path)):
        stamp = stamp_of(seen[WEIGHT].view(torch.uint8))
        assert stamp is not None
        assert stamp.state == "applied"
    inverse(tensors)
    wanted = plain_tensors(DECISION)[WEIGHT]
    wanted[1] = wanted[2] = fresh[0]
    assert tensors[WEIGHT][tuple(slice(size) for size in wanted.shape)].equal(wanted)


def test_what_is_lent_and_never_given_back_is_unknown_to_others(tmp_path: Path) -> None:
    tensors = laid_files(tmp_path)
    view = expert_view(tensors, WEIGHT, 2)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / WEIGHT, tmp_path / "copy")
    shutil.copy(tmp_path / f"{WEIGHT}.preshuffle", tmp_path / "copy")
    plain = own_storage_layer()[WEIGHT]
    other = torch.from_file(str(tmp_path / "copy" / WEIGHT), shared=True, size=plain.numel(), dtype=torch.uint8)
    stamp = stamp_of(other)
    assert stamp is not None
    assert stamp.state == "unknown"
    del view
    assert stamp_of(tensors[WEIGHT].view(torch.uint8)).state == "applied"  # type: ignore[union-attr]


def test_without_attributes_records_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "setxattr", fails)
    monkeypatch.setattr(os, "getxattr", fails)
    tensors = laid_files(tmp_path)
    again = mapped(tmp_path)
    assert stamp_of(again[WEIGHT]) == stamp_of(tensors[WEIGHT]) is not None
    path = renamed(tmp_path)
    other = torch.from_file(str(path), shared=True, size=again[WEIGHT].numel(), dtype=torch.uint8)
    assert stamp_of(other) is not None
    os.link(path, tmp_path / "second")
    other = torch.from_file(str(tmp_path / "second"), shared=True, size=again[WEIGHT].numel(), dtype=torch.uint8)
    assert stamp_of(other) is not None
