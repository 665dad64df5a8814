"""What refuses rests on versions and on code of a release."""

from typing import Any

import pytest

from preshuffle.registry.entries import CodeReference, KnownBadEntry, code_references
from preshuffle.registry.lint import lint, refusing_entries
from preshuffle.registry.loading import load_book
from support.book.strategies import BOOK

CODE = "https://github.com/ROCm/aiter/blob/v0.1.20/aiter/fused_moe.py#fused_moe_1stage_dict"
COMMIT = "0" * 40


@pytest.mark.parametrize(
    ("link", "revision"),
    [
        (CODE, "v0.1.20"),
        (CODE.replace("v0.1.20", "v0.1.6-rc0"), "v0.1.6-rc0"),
        (CODE.replace("v0.1.20", COMMIT), COMMIT),
        (CODE.replace("v0.1.20", "main"), None),
        (CODE.replace("v0.1.20", "0" * 7), None),
        (CODE.partition("#")[0], None),
        (CODE.replace("fused_moe_1stage_dict", "L120"), None),
        (CODE.replace("blob", "tree"), None),
        ("https://github.com/ROCm/aiter/issues/3227", None),
        ("https://github.com/ROCm/aiter/pull/3227#issuecomment-1", None),
    ],
)
def test_code_is_a_symbol_at_a_release(link: str, revision: str | None) -> None:
    found = CodeReference.parse(link)
    assert (found and found.revision) == revision
    if found is not None:
        assert (found.repository, found.path) == ("ROCm/aiter", "aiter/fused_moe.py")
        assert found.symbol == "fused_moe_1stage_dict"


def test_every_packaged_refusal_names_code_and_versions() -> None:
    refusing = list(refusing_entries(BOOK))
    assert {section for section, _ in refusing} == {"rules", "contracts", "known_bad"}
    assert len(refusing) > 100
    for _, entry in refusing:
        reported = isinstance(entry, KnownBadEntry) and entry.rests_on == "reports"
        assert reported or code_references(entry.evidence), entry.id
    reports = {entry.id for _, entry in refusing if isinstance(entry, KnownBadEntry) and entry.rests_on == "reports"}
    assert reports == {"aiter.a4w4.graphs", "asm.1stage.e288", "ck.a4w4.ep96", "vllm.0260.aiter.01163"}, (
        "what rests on reports alone is counted here: read code before adding to it"
    )


@pytest.mark.parametrize(
    ("section", "id", "change", "message"),
    [
        ("rules", "atom.int4", {"evidence": ("https://github.com/ROCm/ATOM/issues/1",)}, "evidence in code"),
        ("rules", "no-fused-moe", {"since": None}, "names no version"),
        ("contracts", "activation.relu", {"since": None}, "names no version"),
        ("contracts", "activation.relu", {"evidence": (CODE.replace("v0.1.20", "main"),)}, "evidence in code"),
        ("contracts", "mxmoe.mask", {"evidence": ("https://github.com/ROCm/aiter/pull/1",)}, "evidence in code"),
        ("known_bad", "flydsl.gelu", {"since": None}, "names no version"),
        ("known_bad", "flydsl.gelu", {"when": {"model": "google/*", "family1": "flydsl_moe1"}}, "keyed by a model"),
        ("known_bad", "asm.1stage.e288", {"evidence": ("https://github.com/ROCm/aiter/issues/5049",)}, None),
        ("known_bad", "asm.1stage.e288", {"rests_on": "code"}, "evidence in code"),
        ("known_bad", "flydsl.gelu", {"evidence": ("https://github.com/ROCm/aiter/pull/1",)}, "evidence in code"),
        ("contracts", "vllm.aiter_moe.off", {"evidence": ("https://github.com/ROCm/aiter/issues/1",)}, None),
    ],
)
def test_a_refusal_without_versions_or_code_is_an_error(
    section: str, id: str, change: dict[str, Any], message: str | None
) -> None:
    book = load_book()
    entries: Any = book.entries[section]
    entries[id] = entries[id].model_copy(update=change)
    problems = [problem.message for problem in lint(book)]
    assert len(problems) == (message is not None)
    assert all(text.startswith(id) and message is not None and message in text for text in problems)
