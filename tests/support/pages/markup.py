"""A page as its markup says it: what it loads and links, its ids, headings and labels, and whether all is closed."""

from __future__ import annotations

from html.parser import HTMLParser

from support.service.server import Client

VOID = frozenset({"meta", "link", "img", "br", "input"})
INPUTS = frozenset({"input", "select", "textarea"})


class Markup(HTMLParser):
    """Collects it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.open: list[str] = []
        self.headings: list[int] = []
        self.inputs: list[str] = []
        self.labelled: list[str] = []
        self.refers: list[str] = []
        self.regions: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        if tag == "script" and "src" not in values:
            self.inline.append("script")
        self.ids += [values["id"]] if "id" in values else []
        if tag == "a":
            self.links.append(values["href"])
        elif tag not in {"svg", "option"}:
            self.loads += [values[name] for name in ("src", "href") if name in values]
        self._read(tag, values)
        if tag not in VOID:
            self.open.append(tag)

    def _read(self, tag: str, values: dict[str, str]) -> None:
        """Keep what a screen reader goes by."""
        if tag in {"h1", "h2", "h3", "h4"}:
            self.headings.append(int(tag[1]))
        if tag in INPUTS and values.get("type") != "hidden":
            self.inputs.append(values["id"])
        if tag == "label":
            self.labelled.append(values["for"])
        for name in ("aria-labelledby", "aria-describedby"):
            self.refers += values.get(name, "").split()
        if values.get("role") == "region":
            self.regions.append(values["aria-label"])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(text: str) -> Markup:
    """Assert what holds for every page, and return its markup."""
    markup = Markup(text)
    assert markup.open == []
    assert markup.inline == []
    assert markup.loads
    assert all(target.startswith("/static/") for target in markup.loads)
    assert len(markup.ids) == len(set(markup.ids)), "an id twice"
    assert set(markup.inputs) == set(markup.labelled), "an input without a label"
    assert set(markup.refers) <= set(markup.ids), "words of an element that is not there"
    assert markup.headings[:1] == [1] or 1 in markup.headings
    assert markup.headings.count(1) == 1
    deeper = [second - first for first, second in zip(markup.headings, markup.headings[1:], strict=False)]
    assert max(deeper, default=0) <= 1, f"a level of headings is left out: {markup.headings}"
    assert len(markup.regions) == len(set(markup.regions)), "two regions of one name"
    assert {target[1:] for target in markup.links if target.startswith("#")} <= set(markup.ids)
    return markup


def page(client: Client, path: str, status: int = 200) -> str:
    """Return a page that is as every page must be."""
    response = client.get(path, headers={"Accept": "text/html,*/*"})
    assert response.status_code == status, response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    check(response.text)
    return response.text
