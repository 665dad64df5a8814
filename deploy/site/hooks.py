"""MkDocs' hooks: the pages that say what the code says, and links that leave the documentation."""

from __future__ import annotations

import posixpath
from functools import cache
from pathlib import Path
from typing import Any, Final

from cli_pages import INDEX as CLI
from cli_pages import cli_pages
from home_page import home_page
from http_page import URI as HTTP
from http_page import http_page
from layout_pages import INDEX as LAYOUTS
from layout_pages import layout_pages, picture_assets
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from model_pages import INDEX as MODELS
from model_pages import model_pages
from page_links import lead_outside, say_titles
from python_pages import INDEX as PYTHON
from python_pages import python_pages

from preshuffle.registry import Registry

RECORDS: Final = "decisions/README.md"
"""Index of the decision records."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List generated pages and decisions in the navigation, each after the index of its kind."""
    records = sorted(path.name for path in (Path(config.docs_dir) / RECORDS).parent.glob("[0-9]*.md"))
    uris = [
        *generated_pages(str(config.extra["models"])),
        *(f"{posixpath.dirname(RECORDS)}/{name}" for name in records),
    ]
    config.nav = _listed(config.nav, uris)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the files of the pictures."""
    readme = Path(config.config_file_path).with_name("README.md").read_text(encoding="utf-8")
    pages = generated_pages(str(config.extra["models"]))
    home = home_page(readme, Path(config.docs_dir).name)
    for uri, content in {"index.md": home, **pages, **picture_assets()}.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave the documentation to the repository, and let others say titles."""
    folder = posixpath.dirname(posixpath.join(Path(config.docs_dir).name, page.file.src_uri))
    titled = say_titles(markdown, Path(config.docs_dir) / page.file.src_uri)
    return lead_outside(titled, folder, f"{config.extra['repository']}/blob/main")


@cache
def generated_pages(models: str) -> dict[str, str]:
    """Return every generated page but the home page, by its path.

    Args:
        models: pattern of the ids of models that get a page.
    """
    registry = Registry.default()
    return {
        **cli_pages(),
        HTTP: http_page(),
        **python_pages(),
        **layout_pages(registry),
        **model_pages(registry, models),
    }


def _listed(nav: Any, uris: list[str]) -> Any:
    """Replace the index of a kind of pages by a list of it and the others."""
    if isinstance(nav, list):
        return [_listed(item, uris) for item in nav]
    if isinstance(nav, dict):
        return {title: _listed(item, uris) for title, item in nav.items()}
    if nav in (CLI, PYTHON, LAYOUTS, MODELS, RECORDS):
        folder = posixpath.dirname(nav)
        return [nav, *(uri for uri in uris if uri.startswith(f"{folder}/") and uri != nav)]
    return nav
