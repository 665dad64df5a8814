"""SVG elements, coloured by the style sheet's classes.

No style stands in the markup, so that the content security policy can forbid inline styles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def svg(
    ident: str,
    size: tuple[float, float],
    title: str,
    description: str,
    parts: Iterable[str],
    data: Mapping[str, str] | None = None,
) -> str:
    """Return an ``svg`` element with an accessible name and description.

    Args:
        ident: its id.
        size: width and height.
        title: its name (an attribute: a ``title`` element would be shown as a tooltip).
        description: a sentence, or ``#id`` of the element of the page that describes it.
        parts: what it holds.
        data: its ``data-`` attributes.
    """
    width, height = size
    attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in (data or {}).items())
    reference = f' aria-describedby="{description[1:]}"' if description.startswith("#") else ""
    words = "" if reference else f"<desc>{escape(description)}</desc>"
    return (
        f'<svg class="picture" id="{ident}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="{escape(title)}"{reference}{attributes}>{words}{"".join(parts)}</svg>'
    )


def text_at(x: float, y: float, text: str, classes: str) -> str:
    """Return a ``text`` element; nothing where the text is empty."""
    return f'<text class="{classes}" x="{x:g}" y="{y:g}">{escape(text)}</text>' if text else ""


def texts(classes: str, items: Iterable[tuple[float, float, str]], letter: float | None = None) -> str:
    """Return one ``text`` element for texts ``(x, y, text)``.

    Each letter is ``letter`` wide where that is given. A text in the line of the one before it needs no ``y``.
    """
    spans: list[str] = []
    line: float | None = None
    for x, y, text in items:
        if not text:
            continue
        stretch = f' textLength="{letter * len(text):g}"' if letter else ""
        down = "" if y == line else f' y="{y:g}"'
        spans.append(f'<tspan x="{x:g}"{down}{stretch}>{escape(text)}</tspan>')
        line = y
    return f'<text class="{classes}">{"".join(spans)}</text>' if spans else ""


def cells(boxes: Sequence[tuple[str, float, float]], size: tuple[float, float], gap: float = 1) -> str:
    """Return one path per class for boxes ``(class, x, y)``.

    The boxes have one size, and are ``gap`` apart where they touch.

    A row or column of equal boxes is one line as wide as a box, and its dashes are the boxes: a tenth of the markup of
    a rectangle each. Of the two directions, the one that needs fewer lines is taken.
    """
    across, down = _lines(boxes, size, axis=0), _lines(boxes, size, axis=1)
    axis, lines = (0, across) if len(across) <= len(down) else (1, down)
    length, width = size[axis], size[1 - axis]
    paths: dict[str, list[str]] = {}
    for kind, x, y, count in lines:
        end = count * length - gap
        middle = (width - gap) / 2
        start = f"M{x:g} {y + middle:g}h{end:g}" if axis == 0 else f"M{x + middle:g} {y:g}v{end:g}"
        paths.setdefault(kind, []).append(start)
    drawn = "".join(f'<path class="{kind}" d="{"".join(strokes)}"/>' for kind, strokes in paths.items())
    return f'<g class="cells" stroke-width="{width - gap:g}" stroke-dasharray="{length - gap:g} {gap:g}">{drawn}</g>'


def _lines(
    boxes: Sequence[tuple[str, float, float]], size: tuple[float, float], axis: int
) -> list[tuple[str, float, float, int]]:
    """Join boxes of one class that touch along an axis.

    Axis 0 is x, 1 is y.
    """
    lines: list[tuple[str, float, float, int]] = []
    for kind, x, y in sorted(boxes, key=lambda box: (box[2 - axis], box[1 + axis])):
        if lines:
            last, start_x, start_y, count = lines[-1]
            next_x, next_y = (start_x + count * size[0], start_y) if axis == 0 else (start_x, start_y + count * size[1])
            if (kind, x, y) == (last, next_x, next_y):
                lines[-1] = (last, start_x, start_y, count + 1)
                continue
        lines.append((kind, x, y, 1))
    return lines
