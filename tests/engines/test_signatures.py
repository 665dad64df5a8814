"""The book's signatures against the engines' and AITER's own functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from preshuffle.registry import Registry
from preshuffle.registry.kernels import Signature, takes
from support.engines.trees import RELEASES, missing, tree_of

pytestmark = pytest.mark.engines
SIGNATURES = list(Registry.default().book.signatures.by_id.values())
NEWER = {"quant_dtype_a", "output", "no_combine"}
"""Arguments of AITER's that only branches have, which no tree shows."""


def definition(tree: Path, path: str) -> ast.FunctionDef | ast.ClassDef:
    module, _, name = path.partition(":")
    text = (tree / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(text))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return next(node for node in nodes if isinstance(node, kinds) and node.name == name.rpartition(".")[2])


def names_of(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """Parameters of a function, fields of a dataclass."""
    if isinstance(node, ast.FunctionDef):
        return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    fields = [statement.target for statement in node.body if isinstance(statement, ast.AnnAssign)]
    return [target.id for target in fields if isinstance(target, ast.Name)]


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda signature: signature.id)
def test_a_release_has_the_arguments_that_the_book_says(signature: Signature) -> None:
    if reason := missing(signature.owner):
        pytest.skip(reason)
    tree = tree_of(signature.owner)
    assert tree is not None
    release = None if signature.owner == "aiter" else RELEASES[signature.owner]
    taken = {name: one.under or name for name, one in signature.arguments.items() if takes(signature, name, release)}
    expected = list(dict.fromkeys(name for name in taken.values() if name not in NEWER))
    found = names_of(definition(tree, signature.path))
    assert sorted(found) == sorted(expected) if signature.owner == "sglang" else found == expected
