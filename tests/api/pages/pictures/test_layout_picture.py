"""A picture says nothing that the layout's own address does not say."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from preshuffle.api.pages.pictures.layout_picture import CELLS_PER_LINE, DrawnTensor, Picture, draw
from preshuffle.api.pages.pictures.layout_svg import cell_data, memory_svg, rows_svg, strip_svg
from preshuffle.api.pages.pictures.layout_words import column_places, row_places, strip_words
from preshuffle.registry import Layout, Query, Registry, TensorDecision
from preshuffle.registry.base.words import RowOrder
from preshuffle.registry.values.decision import Pad

BOOK = Registry.default().book
WEIGHTS = ("plain", "sep16", "gui16", "gurow16")
SCALES = ("plain", "e8", "e8_gui16", "n32k4", "n32k4_gurow")


def tensor(rows: int, k: int, order: RowOrder | None, pad: tuple[int, int] = (0, 0)) -> TensorDecision:
    halves = 2 if order else 1
    return TensorDecision(
        layout="plain",
        logical_shape=(4, rows - halves * pad[0], k - pad[1]),
        physical_shape=(4, rows, k),
        pad=Pad(rows=pad[0], k=pad[1]),
        fill=0,
        dtype="fp8_e4m3fn",
        order=order,
    )


def pictures() -> list[tuple[str, Picture]]:
    found = []
    for order in ("GGUU", "GUGU", None):
        for name in WEIGHTS:
            subject = DrawnTensor.of("w13_weight", BOOK.layout(name), tensor(192, 256, order))
            found.append((f"{name}-{order}", subject))
        for name in SCALES:
            subject = DrawnTensor.of("w13_weight_scale", BOOK.layout(name), tensor(192, 16, order))
            found.append((f"scale-{name}-{order}", subject))
    return [(name, draw(subject)) for name, subject in found if subject is not None]


PICTURES = dict(pictures())


@pytest.mark.parametrize("name", PICTURES)
def test_every_cell_lies_where_address_says(name: str) -> None:
    picture = PICTURES[name]
    bound = picture.tensor.grid().bound
    cells = [cell for row in picture.rows for cell in row] + [cell for line in picture.lines for cell in line.cells]
    for cell in cells:
        for unit in range(picture.run):
            assert bound.address(0, cell.row, cell.k + unit) == cell.address + unit


@pytest.mark.parametrize("name", PICTURES)
def test_lines_are_memory_in_order_without_holes(name: str) -> None:
    picture = PICTURES[name]
    width = CELLS_PER_LINE * picture.run
    for line in picture.lines:
        assert [cell.address for cell in line.cells] == list(range(line.address, line.address + width, picture.run))
    assert picture.lines[0].address == picture.lines[0].skipped == 0
    for one, two in pairwise(picture.lines):
        assert two.skipped == (two.address - one.address - width) * picture.tensor.unit_bytes >= 0


@pytest.mark.parametrize("name", PICTURES)
def test_rows_and_memory_show_the_same_cells(name: str) -> None:
    picture = PICTURES[name]
    drawn = {cell for line in picture.lines for cell in line.cells}
    assert {cell for row in picture.rows for cell in row} <= drawn


@pytest.mark.parametrize("name", PICTURES)
def test_alternation_is_where_memory_first_goes_from_gate_to_up(name: str) -> None:
    picture = PICTURES[name]
    subject = picture.tensor
    grid = subject.grid()
    bound = grid.bound
    halves = [grid.place(bound.source(address)[1])[0] for address in range(subject.shape[0] * subject.shape[1])]
    assert picture.alternation == (halves.index("up") if subject.order else None)


@pytest.mark.parametrize(
    ("layout", "starts"),
    [
        ("sep16", ["g0", "g1", "g2", "g3"]),
        ("gui16", ["g0", "g1", "g2", "g3"]),
        ("gurow16", ["g0", "u0", "g1", "u1"]),
        ("plain", ["g0", "g0", "g0", "g0"]),
    ],
)
def test_the_layouts_look_as_their_names_say(layout: str, starts: list[str]) -> None:
    picture = PICTURES[f"{layout}-GGUU"]
    assert [cell.name for cell in picture.lines[0].cells[:4]] == starts
    bands = [line.cells[0].half for line in picture.lines if line.skipped or line.address == 0]
    expected = {
        "sep16": ["gate", "gate", "up", "up"],
        "gui16": ["gate", "up", "gate", "up"],
        "gurow16": ["gate", "gate"],
        "plain": ["gate", "up"],
    }
    assert bands == expected[layout]


def test_what_holds_fill_is_drawn_as_padding() -> None:
    subject = DrawnTensor.of("w13_weight", BOOK.layout("sep16"), tensor(64, 64, "GGUU", (8, 16)))
    assert subject is not None
    cells = [cell for row in draw(subject).rows for cell in row]
    assert {(cell.row_in_half, cell.k) for cell in cells if cell.pad} == {
        (row, k) for row in range(32) for k in range(0, 64, 16) if row >= 24 or k >= 48
    }


def test_sizes_are_bytes_for_weights_and_groups_for_scales() -> None:
    decision = Registry.default().resolve(
        Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2)
    )
    subjects = {role: DrawnTensor.of(role, BOOK.layout(item.layout), item) for role, item in decision.tensors.items()}
    shapes = {role: (item.shape, item.live, item.unit, item.unit_bytes) for role, item in subjects.items() if item}
    assert shapes["w13_weight"] == ((3072, 1536), (1440, 1440), "byte", 1)
    assert shapes["w2_weight_scale"] == ((3072, 48), (2880, 45), "group", 1)
    assert shapes["w13_bias"] == ((3072, 1), (1440, 1), "value", 4)


def test_a_scale_that_is_flat_over_its_experts_is_drawn_as_it_lies() -> None:
    scale = tensor(96, 8, "GGUU", (0, 3)).model_copy(update={"dtype": "e8m0"})
    tail = DrawnTensor.of("w13_weight_scale", BOOK.layout("e8"), scale.model_copy(update={"physical_shape": (512, 8)}))
    only_k = DrawnTensor.of(
        "w13_weight_scale", BOOK.layout("e8_gui16"), scale.model_copy(update={"physical_shape": (384, 8)})
    )
    assert tail is not None
    assert (tail.shape, tail.live, tail.order) == ((512, 8), (384, 5), None)
    assert only_k is not None
    assert (only_k.shape, only_k.live, only_k.order) == ((96, 8), (48, 5), "GGUU")


def test_int4_is_drawn_as_it_was_laid_out() -> None:
    packed = tensor(64, 64, None).model_copy(update={"dtype": "i4x2", "steps": ("pack_int4",)})
    subject = DrawnTensor.of("w2_weight", BOOK.layout("sep16"), packed)
    assert subject is not None
    assert subject.shape == (64, 64)


def test_a_tensor_without_rows_has_no_picture() -> None:
    scalar = tensor(2, 2, None).model_copy(update={"physical_shape": (4,), "logical_shape": (4,)})
    assert DrawnTensor.of("w13_input_scale", BOOK.layout("plain"), scalar) is None


def test_a_layout_of_an_overlay_is_drawn_without_any_code() -> None:
    subject = DrawnTensor.of("w2_weight", Layout.of("mine", "e (nt n4) (kt k8) -> e kt nt n4 k8"), tensor(64, 64, None))
    assert subject is not None
    picture = draw(subject)
    assert (picture.run, picture.tensor.layout.id) == (8, "mine")


def drawn_cells(svg: ElementTree.Element, size: tuple[int, int]) -> set[tuple[str, float, float]]:
    """Take the dashed paths apart again: the class and corner of each cell."""
    (group,) = svg.findall("g")
    dash, gap = map(float, group.get("stroke-dasharray", "").split())
    width = float(group.get("stroke-width", ""))
    found = set()
    for path in group.findall("path"):
        for x, y, direction, length in re.findall(r"M([\d.]+) ([\d.]+)([hv])([\d.]+)", path.get("d", "")):
            count, left = divmod(float(length) + gap, dash + gap)
            assert left == 0
            assert (dash + gap, width + gap) == (size if direction == "h" else size[::-1])
            for index in range(int(count)):
                start, across = index * (dash + gap), width / 2
                place = (
                    (float(x) + start, float(y) - across) if direction == "h" else (float(x) - across, float(y) + start)
                )
                found.add((path.get("class", ""), *place))
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_the_svg_is_well_formed_and_holds_every_cell(name: str) -> None:
    picture = PICTURES[name]
    memory, rows = ElementTree.fromstring(memory_svg(picture, "x")), ElementTree.fromstring(rows_svg(picture, "x"))
    assert len(drawn_cells(memory, (29, 18))) == sum(len(line.cells) for line in picture.lines)
    assert len(drawn_cells(rows, (50, 9))) == sum(map(len, picture.rows))
    for svg in (memory, rows):
        classes = [path.get("class") for path in svg.iter("path")]
        assert len(classes) == len(set(classes)), "one path per class"
        assert svg.get("aria-label")
        assert not [element for element in svg.iter() if element.get("style")]
    assert memory.get("aria-describedby") == "x-words"
    names = [text for text in memory.findall("text") if text.get("class") == "names"]
    words = [(span.text or "").split() for text in names for span in text]
    assert words == [[cell.name for cell in line.cells] for line in picture.lines]
    assert (strip_svg(picture, "x") == "") == (picture.alternation is None)


def read_series(text: str) -> dict[str, int]:
    """Read what ``picture.js`` reads."""
    found: dict[str, int] = {}
    for series in text.split():
        match = re.fullmatch(r"(\D*)(\d+):(\d+)\+(-?\d+)\*(\d+)", series)
        assert match, series
        first, value, step, count = map(int, match.groups()[1:])
        found |= {f"{match[1]}{first + index}": value + index * step for index in range(count)}
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_the_script_is_told_where_every_cell_lies(name: str) -> None:
    picture = PICTURES[name]
    data = cell_data(picture)
    rows, columns = read_series(data["rows"]), read_series(data["columns"])
    live_rows, live_k = map(int, data["live"].split())
    assert data["unit"] == f"{picture.tensor.unit} {picture.tensor.unit_bytes} {picture.run}"
    for cell in [*(cell for row in picture.rows for cell in row), *(c for line in picture.lines for c in line.cells)]:
        assert rows[cell.name] + columns[str(cell.k // picture.run)] == cell.address
        assert (cell.row_in_half >= live_rows or cell.k >= live_k) == cell.pad
    memory, by_row = ElementTree.fromstring(memory_svg(picture, "x")), ElementTree.fromstring(rows_svg(picture, "x"))
    lines = read_series(memory.get("data-lines", ""))
    assert [int(line) * CELLS_PER_LINE * picture.run for line in lines] == [line.address for line in picture.lines]
    assert list(read_series(by_row.get("data-lines", ""))) == [row[0].name for row in picture.rows]


def test_the_numbers_beside_the_picture_say_where_rows_start_and_what_columns_add() -> None:
    assert row_places(PICTURES["gui16-GGUU"])[:2] == (
        ("gate rows 0–15", "0, 16, … 240"),
        ("gate rows 16–31", "8\u202f192, 8\u202f208, … 8\u202f432"),
    )
    assert column_places(PICTURES["gui16-GGUU"]) == (("bytes 0–63, 16 at a time", "0, 256, 512, 768"),)
    assert column_places(PICTURES["scale-e8-None"])[1] == ("groups 4–7", "2, 66, 130, 194")


def test_the_words_say_what_the_eye_sees() -> None:
    assert strip_words(PICTURES["sep16-GGUU"]).startswith("Gate and up lie apart")
    assert "every 4\u202f096 bytes (16 rows)" in strip_words(PICTURES["gui16-GGUU"])
    assert "every 16 bytes" in strip_words(PICTURES["gurow16-GGUU"])
    assert "no gate and up" in strip_words(PICTURES["sep16-None"])
