"""The book's layouts, one page each, drawn by the function that draws them for the service's pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml
from page_markup import WIDE, code, fenced, page, table, text

import preshuffle.api
from preshuffle.api.pages.layer_section import picture_of
from preshuffle.api.pages.render import templates
from preshuffle.registry import Registry
from preshuffle.registry.entries import LayoutEntry
from preshuffle.registry.lint import known_backends, known_readers

INDEX: Final = "book/layouts/index.md"
STYLES: Final = "assets/pictures.css"
SCRIPT: Final = "assets/picture.js"
_STATIC: Final = Path(preshuffle.api.__path__[0]) / "static"
_DARK: Final = re.compile(r"@media \(prefers-color-scheme: dark\) \{\n(.*?)\n\}", re.DOTALL)


def layout_pages(registry: Registry) -> dict[str, str]:
    """Return one page per layout, after one of all layouts."""
    layouts = registry.book.layouts
    rows = [(f"[{code(entry.id)}]({entry.id}.md)", text(entry.title)) for entry in layouts.values()]
    index = page(
        "# Layouts",
        "A layout is an order of bytes, as one line. These are the packaged book's; "
        "`preshuffle layouts show ID --shape E,ROWS,K` draws one on another shape.",
        table(("Layout", "What it is"), rows),
    )
    pages = {f"book/layouts/{entry.id}.md": _layout(registry, entry) for entry in layouts.values()}
    return {INDEX: index, **pages}


def picture_assets() -> dict[str, str]:
    """Return the styles and the script of the service's pictures.

    The service follows the system's colours, the site a switch of its own: what is dark there hangs on its attribute.
    """
    css = (_STATIC / "page.css").read_text(encoding="utf-8")
    colours, _, rest = css.partition("* {")
    pictures = rest.partition("/* pictures */")[2].partition("@media (max-width")[0]
    return {STYLES: _switched(colours) + _switched(pictures), SCRIPT: (_STATIC / "picture.js").read_text("utf-8")}


def _switched(css: str) -> str:
    """Replace the system's dark colours by those of the site's switch."""

    def dark(found: re.Match[str]) -> str:
        inner = found[1].replace(":root", "&")
        return f'[data-md-color-scheme="slate"] {{\n{inner}\n}}'

    return _DARK.sub(dark, css)


def _layout(registry: Registry, entry: LayoutEntry) -> str:
    book = registry.book
    names = (entry.id, *entry.aliases)
    readers = [
        (code(reader.family), reader.stage, ", ".join(map(code, reader.roles)), _known(reader))
        for reader in known_readers(book, names)
    ]
    backends = [
        (code(reader.backend), ", ".join(map(code, reader.roles)), _known(reader))
        for reader in known_backends(book, names)
    ]
    recipes = [
        code(recipe.id)
        for recipe in book.recipes.values()
        if entry.id in {book.layout(tensor.layout).id for tensor in recipe.tensors.values()}
    ]
    fields = entry.model_dump(mode="json", exclude_unset=True, exclude={"id"})
    return page(
        WIDE,
        f"# {entry.id}",
        f"{text(entry.title)}.",
        "## Where the bytes lie",
        _drawing(entry),
        "## Who reads it" if readers or backends else "",
        table(("Kernel family", "Stage", "Tensors", "Known"), readers),
        table(("Backend", "Tensors", "Known"), backends),
        f"## Recipes\n\nLaid out by {', '.join(recipes)}." if recipes else "",
        "## Entry as written",
        fenced(yaml.safe_dump({entry.id: fields}, sort_keys=False, allow_unicode=True, width=100), "yaml"),
    )


def _known(reader: Any) -> str:
    """Return how it is known what a kernel reads."""
    if not reader.evidence:
        return "the book does not say"
    more = len(reader.evidence) - 1
    return text(reader.evidence[0].says) + (f"; {more} more" if more else "")


def _drawing(entry: LayoutEntry) -> str:
    """Draw a layout as HTML of one line, which Markdown leaves as it is."""
    macros: Any = templates().get_template("layer_section.html").module
    html = f"<div class='preshuffle-picture'>{macros.key()}{macros.figure(picture_of(entry))}</div>"
    return re.sub(r"\s*\n\s*", " ", html)
