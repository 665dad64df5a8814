"""What overlays do to packaged entries."""

from __future__ import annotations

import json
from pathlib import Path

from preshuffle.registry.overlaid import Overlaid, overlaid_entries
from support.book.strategies import BOOK, load_overlay


def effects(tmp_path: Path, **sections: object) -> dict[tuple[str, str], Overlaid]:
    book = load_overlay(tmp_path, json.dumps(sections)).book
    return {(item.section, item.id): item for item in overlaid_entries(book)}


def rule(id: str, **changed: object) -> dict[str, object]:
    """A packaged rule's fields, some of them changed."""
    return BOOK.rules[id].model_dump(mode="json", exclude_unset=True, exclude={"id"}) | {"because": "a test"} | changed


def test_a_model_of_ones_own_changes_nothing(tmp_path: Path) -> None:
    model = BOOK.models["openai/gpt-oss-120b"].model_dump(mode="json", exclude_unset=True, exclude={"id", "aliases"})
    assert effects(tmp_path, models={"acme/moe": model}) == {}


def test_a_rule_with_one_more_condition_outranks_the_one_that_answered(tmp_path: Path) -> None:
    packaged = "gpt-oss.a4w4.gfx950"
    when = {**BOOK.rules[packaged].when, "deployment": "blue-*"}
    found = effects(tmp_path, rules={"blue": rule(packaged, when=when)})
    assert {item.effect for item in found.values()} == {"outranked"}
    item = found["rules", packaged]
    assert (item.id, item.effect, item.place) == (packaged, "outranked", str(BOOK.places["rules", packaged]))
    assert item.by == {"blue": f"{tmp_path / 'overlay.yaml'}:1"}


def test_a_rule_that_takes_every_query_makes_a_packaged_one_unreachable(tmp_path: Path) -> None:
    packaged = "mxfp4.swiglu.a4w4"
    found = effects(tmp_path, rules={"all": rule(packaged, priority=9)})
    assert found["rules", packaged].effect == "unreachable"
    assert list(found["rules", packaged].by) == ["all"]


def test_a_replaced_rule_leaves_its_recipe_unused(tmp_path: Path) -> None:
    packaged = "atom.triton.gfx1250.swiglu"
    found = effects(tmp_path, rules={packaged: rule(packaged, use=None)})
    assert found["rules", packaged].effect == "replaced"
    recipe = BOOK.rules[packaged].use
    assert recipe is not None
    assert found["recipes", recipe].effect == "unused"
    assert found["recipes", recipe].by == found["rules", packaged].by


def test_packaged_evidence_can_be_replaced(tmp_path: Path) -> None:
    id, entry = next(iter(BOOK.kernel_evidence.items()))
    fields = entry.model_dump(mode="json", exclude_unset=True, exclude={"id"})
    assert effects(tmp_path, kernel_evidence={id: fields})["kernel_evidence", id].effect == "replaced"
