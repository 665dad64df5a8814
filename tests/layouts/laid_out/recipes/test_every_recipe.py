"""Every recipe of the book, through files: what ``apply`` gives in memory, and back to the checkpoint.

The checkpoints come from ``tests/tables/recipe_checkpoints.yaml``, which ``support.book.recipe_checkpoints`` writes.
The default run takes a few of them; the rest is slow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts import Checkpoint, CheckpointError, stamp_of, write_checkpoint
from preshuffle.layouts.laid_out import LaidOutError, lay_out_checkpoint, restore_checkpoint
from preshuffle.layouts.laid_out.plain_layer import unrestorable
from preshuffle.registry import LayoutError, Registry
from preshuffle.registry.entries import SECOND_LEVEL
from support.book.recipe_checkpoints import ALLOW, config_of, read_recipe_checkpoints
from support.tensors.laid_out import applied_one_by_one, contents, flat, query_of, read_stamped

REGISTRY = Registry.default()
TABLE = read_recipe_checkpoints()
ROWS = {recipe: row for recipe, row in TABLE.items() if "refused" not in row}
REFUSED = sorted(set(TABLE) - set(ROWS))
STORAGES = {(row["base"], row["section"]): recipe for recipe, row in reversed(ROWS.items()) if "allow" not in row}
FEW = sorted(STORAGES.values())[::5]
"""One recipe of some kinds of storage; test_lay_out has cases of others."""


def test_every_recipe_has_a_checkpoint() -> None:
    assert set(TABLE) == set(REGISTRY.book.recipes), "run python -m support.book.recipe_checkpoints"
    for recipe, row in TABLE.items():
        config = config_of(row["base"], row["section"], tuple(row["sizes"]), REGISTRY)
        query = REGISTRY.query_from_hf_config(config, layer=0, **row["fields"])
        assert REGISTRY.resolve(query, kernels=False, nearest=False).recipe == recipe


def assert_laid_out_as_in_memory(folder: Path, recipe: str) -> None:
    row = ROWS[recipe]
    config = config_of(row["base"], row["section"], tuple(row["sizes"]), REGISTRY)
    checkpoint = write_checkpoint(folder / "checkpoint", config)
    allow = (*ALLOW, *row.get("allow", ()))
    if "allow" in row:  # an engine runs these bytes wrongly
        with pytest.raises(LayoutError, match="carries errors, nothing was changed"):
            lay_out_checkpoint(checkpoint, folder / "out", allow=ALLOW, **row["fields"])
    manifest = lay_out_checkpoint(checkpoint, folder / "out", workers=2, allow=allow, **row["fields"])
    assert {plan.recipe for plan in manifest.plans} == {recipe}
    compare_with_apply(checkpoint, folder / "out", row["fields"], allow)
    lost = unrestorable(manifest)
    if lost:
        with pytest.raises(LaidOutError, match="cannot be restored") as raised:
            restore_checkpoint(folder / "out", folder / "back")
        assert lost[0] in str(raised.value)
        lay_out_checkpoint(checkpoint, folder / "kept", keep="all", allow=allow, **row["fields"])
    restore_checkpoint(folder / ("kept" if lost else "out"), folder / "back")
    assert contents(folder / "back") == contents(folder / "checkpoint")


def compare_with_apply(checkpoint: Checkpoint, out: Path, fields: dict[str, Any], allow: tuple[Any, ...]) -> None:
    layer = next(iter(checkpoint.experts))
    query = query_of(checkpoint, layer, **fields)
    decision = REGISTRY.resolve(query)
    for tp_rank, ep_rank, wanted in applied_one_by_one(checkpoint, query, decision, layer, allow=allow):
        found = read_stamped(out / f"rank-tp{tp_rank}-ep{ep_rank}-layer-{layer:05d}.safetensors")
        assert len(found) == len([role for role in wanted if not role.endswith(SECOND_LEVEL)])  # multiplied in
        by_stamp = {str(stamp.role): tensor for tensor in found.values() if (stamp := stamp_of(tensor)) is not None}
        for role, tensor in wanted.items():
            stamp = stamp_of(tensor)
            if stamp is not None:
                assert flat(by_stamp[role]).equal(flat(tensor)), role
                assert stamp_of(by_stamp[role]) == stamp


@pytest.mark.parametrize("recipe", FEW)
def test_some_recipes(tmp_path: Path, recipe: str) -> None:
    assert_laid_out_as_in_memory(tmp_path, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(set(ROWS) - set(FEW)))
def test_every_other_recipe(tmp_path: Path, recipe: str) -> None:
    assert_laid_out_as_in_memory(tmp_path, recipe)


@pytest.mark.parametrize("recipe", REFUSED)
def test_what_no_checkpoint_holds_is_refused_with_the_reason(tmp_path: Path, recipe: str) -> None:
    row = TABLE[recipe]
    checkpoint = write_checkpoint(
        tmp_path / "in", config_of(row["base"], row["section"], tuple(row["sizes"]), REGISTRY)
    )
    with pytest.raises(CheckpointError, match=row["refused"]) as raised:
        lay_out_checkpoint(checkpoint, tmp_path / "out", allow=(*ALLOW, "contract_mismatch"), **row["fields"])
    assert f"recipe {recipe} " in str(raised.value)
    assert "let the engine load" in str(raised.value) or "Name the engine" in str(raised.value)
    assert not (tmp_path / "out").exists()
