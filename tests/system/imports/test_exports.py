"""Exports: the public names of the three entry points, and the faces of the rooms."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import preshuffle.api.client
import preshuffle.layouts
import preshuffle.registry
from support.source.modules import SourceModule, modules_below

ROOT = Path(__file__).parents[3]
PACKAGES = list(modules_below(ROOT, "registry", "layouts", "api", files="__init__.py").values())


def exports_of(module: SourceModule) -> list[str] | None:
    """Return the names of ``__all__`` as the text lists them; None without such a list."""
    for node in module.tree.body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "__all__"
            and isinstance(node.value, ast.List)
        ):
            return [str(ast.literal_eval(item)) for item in node.value.elts]
    return None


FACES = [module for module in PACKAGES if exports_of(module) is not None]


def test_the_registry_exports_exactly_these_names() -> None:
    assert sorted(preshuffle.registry.__all__) == [
        *("Applied", "BookError", "BoundLayout", "CopyPlan", "Decision", "Engine", "Explanation", "Finding"),
        *("Layout", "LayoutError", "NoRecipeError", "Observation", "Permutation", "PlainView", "PreshuffleError"),
        *("Query", "QueryError", "Recipe", "Registry", "Report", "Rule", "TensorDecision", "TensorObservation"),
        *("explain_code", "observation_of", "plan_copy"),
    ]


def test_the_layouts_export_exactly_these_names() -> None:
    assert sorted(preshuffle.layouts.__all__) == [
        *("ApplyResult", "CallGuard", "Check", "Checkpoint", "CheckpointError", "EnvironmentDifference"),
        *("ExpertRange", "Identification", "LaidOutError", "LaidOutRank", "LayerQuery", "ObservedCall"),
        *("ObservedLayer", "PreparedLayer", "StaleError", "Stamp", "WrongCallError", "WrongCallWarning"),
        *("aiter_here", "apply", "apply_layout", "begin_reload", "call_arguments", "convert_laid_out"),
        *("describe", "expert_view", "finish_reload", "guard_calls", "identify", "inverse"),
        *("invert_layout", "lay_out_checkpoint", "observe_here", "observe_layer", "observed_call"),
        *("open_laid_out", "plain_reload", "plain_view", "prepare", "prove", "query_of_layer"),
        *("registry_here", "relayout", "restore_checkpoint", "retag", "shipped_books", "stamp_of"),
        *("stamps_from_metadata", "stamps_to_metadata", "verify_laid_out", "write_checkpoint"),
        *("write_expert",),
    ]


def test_the_client_exports_exactly_these_names() -> None:
    assert sorted(preshuffle.api.client.__all__) == [
        *("AsyncPendingReport", "AsyncReporter", "Client", "ClientError", "Group", "Observation", "PendingReport"),
        *(
            "PipelineStage",
            "Reply",
            "Reporter",
            "ReporterStats",
            "ServiceSettings",
            "Told",
            "VerdictError",
            "faults_of",
        ),
        *("group_layers", "not_ours", "read_problem"),
    ]


def test_lazy_names_of_the_registry_are_those_for_type_checkers() -> None:
    (face,) = (module for module in PACKAGES if module.name == "preshuffle.registry")
    assert face.imported_names() == set(preshuffle.registry.__all__)
    for node in ast.walk(face.tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("preshuffle."):
            for alias in node.names:
                wanted = getattr(import_module(str(node.module)), alias.name)
                assert getattr(preshuffle.registry, alias.name) is wanted, alias.name


@pytest.mark.parametrize("name", ["registry", "layouts", "api.client"])
def test_every_public_name_can_be_imported(name: str) -> None:
    module = import_module(f"preshuffle.{name}")
    assert [public for public in module.__all__ if not hasattr(module, public)] == []
    assert set(module.__all__) <= set(dir(module))


def test_the_faces_are_found() -> None:
    assert len(FACES) > 20


@pytest.mark.parametrize("face", FACES, ids=lambda face: str(face.name).removeprefix("preshuffle."))
def test_a_face_lists_what_it_exports(face: SourceModule) -> None:
    exports = exports_of(face) or []
    assert len(set(exports)) == len(exports)
    public = {name for name in face.imported_names() | face.defined_names() if not name.startswith("_")}
    assert set(exports) == public


def test_a_package_without_a_list_exports_nothing_from_elsewhere() -> None:
    """A folder of commands is a module like any other: it has functions of its own and imports what it needs."""
    silent = [module for module in PACKAGES if exports_of(module) is None and module.name != "preshuffle.registry"]
    commands = "preshuffle.api.commands."
    assert {
        module.name for module in silent if module.imported_names() and not module.name.startswith(commands)
    } == set()
