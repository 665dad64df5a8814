"""What must hold across entries before a book is used: references, w13 bytes against gate_mode, ties between rules."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import combinations

from preshuffle.registry.books import PACKAGED, Book
from preshuffle.registry.errors import Problem
from preshuffle.registry.recipe import Recipe
from preshuffle.registry.rule import Rule, Specificity
from preshuffle.registry.words import GROUP, Role

W13 = ("w13_weight", "w13_weight_scale")


def lint(book: Book) -> list[Problem]:
    """Return every cross-entry problem of a book, in the order of recipes and rules."""
    problems: list[Problem] = []
    problems += _names(book, "layouts")
    problems += _names(book, "models")
    problems += _evidence(book)
    for recipe in book.recipes.values():
        problems += _recipe(book, recipe)
    for rule in book.rules.values():
        problems += _rule(book, rule)
    if not problems:
        problems += _ties(book)
    return problems


def _evidence(book: Book) -> Iterator[Problem]:
    """Every packaged entry says where it is from; an operator's overlay may leave that out."""
    for (section, id), place in book.places.items():
        entry = book.entries[section].get(id)
        if place.document.name.startswith(f"{PACKAGED}/") and getattr(entry, "evidence", True) == ():
            yield place.problem(f"{id} has no evidence; a URL is needed", valid=("evidence: [URL]",))


def near(name: str, names: Iterator[str] | list[str]) -> tuple[str, ...]:
    """Return the closest names, or all of them where none is close."""
    known = list(names)
    return tuple(get_close_matches(name, known, n=3, cutoff=0.5) or known)


def _names(book: Book, section: str) -> Iterator[Problem]:
    """A name that means two entries would silently pick one of them."""
    owner = {id: id for id in book.entries[section]}
    for id, entry in book.entries[section].items():
        for index, alias in enumerate(entry.aliases):
            if owner.setdefault(alias, id) != id:
                place = book.places[section, id]
                yield place.problem(f"alias {alias!r} already means {owner[alias]!r}", "aliases", index)


def _recipe(book: Book, recipe: Recipe) -> Iterator[Problem]:
    place = book.places["recipes", recipe.id]
    known = {name for entry in book.layouts.values() for name in (entry.id, *entry.aliases)}
    for role, tensor in recipe.tensors.items():
        if tensor.layout not in known:
            inside = ("tensors", role, "layout")
            yield place.problem(f"unknown layout {tensor.layout!r}", *inside, valid=near(tensor.layout, sorted(known)))
            continue
        layout = book.layout(tensor.layout)
        if role in W13 and tensor.order != "GUGU" and layout.gate_mode != recipe.call.gate_mode:
            yield place.problem(
                f"{role} is {tensor.layout}, whose bytes a kernel reads with gate_mode={layout.gate_mode}, "
                f"but the call says gate_mode={recipe.call.gate_mode}",
                *("tensors", role, "layout"),
            )
        if tensor.pad.k % layout.k_multiple and layout.unit == "group":
            yield place.problem(
                f"{role}: pad.k {tensor.pad.k} is not a multiple of {layout.k_multiple}, the tile of {layout.id}",
                *("tensors", role, "pad"),
            )
        if layout.pattern.splits_gate_up and not role.startswith("w13"):
            yield place.problem(f"{role} has no gate and up, which {layout.id} interleaves", "tensors", role, "layout")
    yield from _scales(book, recipe)
    yield from _dimensions(book, recipe)
    for feature in recipe.requires.aiter:
        if feature not in book.features:
            valid = near(feature, list(book.features))
            yield place.problem(f"unknown AITER feature {feature!r}", "requires", "aiter", valid=valid)
    for name in recipe.env:
        if name not in book.flags:
            yield place.problem(f"unknown switch {name!r}", "env", name, valid=near(name, list(book.flags)))


def _scales(book: Book, recipe: Recipe) -> Iterator[Problem]:
    """A weight and its scale are padded to the same values, or a kernel would read past one of them."""
    place = book.places["recipes", recipe.id]
    group = GROUP.get(recipe.call.quant_type)
    if group is None:
        return
    for weight, scale in (("w13_weight", "w13_weight_scale"), ("w2_weight", "w2_weight_scale")):
        first, second = recipe.tensors.get(weight), recipe.tensors.get(scale)  # type: ignore[call-overload]
        if first is None or second is None or recipe.call.quant_type != "per_1x32":
            continue
        if first.pad.k != second.pad.k * group or first.pad.rows != second.pad.rows:
            yield place.problem(
                f"{weight} is padded to {first.pad.rows} rows and {first.pad.k} values of K, {scale} to "
                f"{second.pad.rows} rows and {second.pad.k} groups ({second.pad.k * group} values)",
                *("tensors", scale, "pad"),
            )


def _dimensions(book: Book, recipe: Recipe) -> Iterator[Problem]:
    """Hidden and intermediate size are one number each, which a kernel takes from w2 and uses for all tensors."""
    w2 = recipe.tensors["w2_weight"].pad
    pairs: tuple[tuple[Role, str, str, int], ...] = (
        ("w13_weight", "k", "w2_weight's rows", w2.rows),
        ("w13_weight", "rows", "w2_weight's K", w2.k),
        ("w2_bias", "rows", "w2_weight's rows", w2.rows),
        ("w13_bias", "rows", "w2_weight's K", w2.k),
    )
    for role, side, other, multiple in pairs:
        tensor = recipe.tensors.get(role)
        if tensor is not None and getattr(tensor.pad, side) != multiple:
            text = f"{role}: pad.{side} {getattr(tensor.pad, side)}, and {other} are padded to {multiple}"
            yield book.places["recipes", recipe.id].problem(text, "tensors", role, "pad", side)


def _rule(book: Book, rule: Rule) -> Iterator[Problem]:
    place = book.places["rules", rule.id]
    if rule.use is not None and rule.use not in book.recipes:
        yield place.problem(f"unknown recipe {rule.use!r}", "use", valid=near(rule.use, list(book.recipes)))
    for name in rule.when.get("env", {}):
        if name not in book.flags:
            yield place.problem(f"unknown switch {name!r}", "when", "env", name, valid=near(name, list(book.flags)))
    model = rule.when.get("model")
    for name in model if isinstance(model, list) else [model]:
        owner = next((entry.id for entry in book.models.values() if name in entry.aliases and name != entry.id), None)
        if owner and not set(str(name)) & set("*?"):
            yield place.problem(f"{name!r} is another name of {owner!r}; a rule needs the id", "when", "model")
    arch = rule.when.get("arch")
    for name in arch if isinstance(arch, list) else [arch]:
        if isinstance(name, str) and name not in book.archs:
            yield place.problem(f"unknown arch {name!r}", "when", "arch", valid=tuple(book.archs))


def _ties(book: Book) -> Iterator[Problem]:
    """Two rules that are equally specific and can match one query: decided on the conditions, not sampled."""
    groups: dict[tuple[int, int, int, int], list[Rule]] = {}
    for rule in book.rules.values():
        groups.setdefault(Specificity.of(rule).key, []).append(rule)
    for rules in groups.values():
        for first, second in combinations(rules, 2):
            if _can_both_match(first, second):
                other = book.places["rules", first.id]
                line = other.document.line(other.path)
                yield book.places["rules", second.id].problem(
                    f"rules {first.id!r} ({other.document.name}:{line}) and {second.id!r} are equally specific and can "
                    f"match the same query; make one more specific, or give one a priority",
                )


def _can_both_match(first: Rule, second: Rule) -> bool:
    left, right = first.conditions(), second.conditions()
    return all(left[name].overlaps(right[name]) for name in left.keys() & right.keys())
