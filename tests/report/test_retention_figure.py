import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vico_eval.errors import ReportError
from vico_eval.report.costs.axis import CostAxis
from vico_eval.report.figures.files import write_figure
from vico_eval.report.figures.retention import Point, draw_retention
from vico_eval.report.figures.style import COLOURS, COLUMN, FAINT, INK, Look, Sheet, looks
from vico_eval.report.stats.retention import pareto_front
from vico_eval.report.tables.table import Table


def make_table(rows: dict[str, tuple[float, float, float]], **changes) -> Table:
    """Rows of title: retention, token share, tile ratio; `Vanilla` is the baseline."""
    summary = pd.DataFrame.from_dict(rows, orient="index", columns=["retention", "token_share", "tile_ratio"])
    summary = summary.assign(retention_se=0.6, documents=1504, **changes)
    return Table(caption="Retention", columns=("A",), digits={}, rows=(), baseline="Vanilla", notes=(), summary=summary)


ROUTED = {
    "Vanilla": (100.0, 100.0, 0.0),
    "ViCO (All Compress)": (80.0, 25.0, 100.0),
    "ViCO (Random Compress)": (88.0, 56.5, 58.0),
    "ViCO (Image-level ViR)": (88.2, 56.4, 58.1),
    "ViCO": (98.5, 56.5, 58.0),
}


def names(figure):
    """Names and numbers beside the picture, from above: those of one row on one height."""
    beside = [text for text in figure.texts if text.get_position()[0] > figure.axes[0].get_position().x1]
    return [
        text.get_text() for text in sorted(beside, key=lambda text: (-text.get_position()[1], text.get_position()[0]))
    ]


SHEETS = [Sheet(), Sheet(width=COLUMN), Sheet(width=COLUMN, is_serif=True)]


def test_every_row_is_named_with_its_retention_in_the_order_of_the_points():
    assert names(draw_retention(make_table(ROUTED))) == [
        *("100.0", "Vanilla", "98.5", "ViCO", "88.2", "ViCO (Image-level ViR)"),
        *("88.0", "ViCO (Random Compress)", "80.0", "ViCO (All Compress)"),
    ]


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("number", [2, 11, 25])
def test_text_overlaps_nothing_and_stays_inside_at_8_points(sheet, number):
    rows = {f"Method {place} with a long name": (95.0 - 0.1 * place, 50.0, 0.0) for place in range(number)}
    figure = draw_retention(make_table({"Vanilla": (100.0, 100.0, 0.0), "Far": (20.0, 40.0, 0.0)} | rows), sheet)
    assert figure.get_size_inches()[0] == sheet.width
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = [label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    texts = [text for text in (*figure.texts, *(axes.xaxis.label for axes in figure.axes)) if text.get_text()]
    assert {text.get_fontsize() for text in (*texts, *ticks)} == {8.0}
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)
    assert all(box.y1 <= figure.bbox.height for box in boxes)


def test_over_another_cost_points_stand_at_its_shares_and_slow_rows_are_marked():
    shares = {"Vanilla": 100.0, "ViCO": 70.0, "ViCO (All Compress)": 130.0, "ViCO (Random Compress)": np.nan}
    axis = CostAxis(label="Seconds", shares=shares, slower=frozenset({"ViCO (All Compress)"}))
    figure = draw_retention(make_table(ROUTED), axis=axis)
    # Two rows' times are not known.
    assert names(figure) == ["100.0", "Vanilla", "98.5", "ViCO", "80.0", "ViCO (All Compress) (slower)"]
    axes = figure.axes[-1]  # the slow row's, beneath a break
    assert axes.get_xlabel() == "Seconds, % of Vanilla"
    left, right = axes.get_xlim()
    assert left > 130
    assert right < 70
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-pre"]
    assert list(line.get_xdata()) == [100.0, 70.0]  # the slow one is behind
    nothing = CostAxis(label="Peak memory", shares={}, slower=frozenset())
    with pytest.raises(ReportError, match="no row has both a retention and peak memory that can be compared"):
        draw_retention(make_table(ROUTED), axis=nothing)


@pytest.mark.parametrize("sheet", SHEETS)
def test_the_mark_of_a_slow_row_stays_inside(sheet):
    long = "Method with a name that is longer than the picture has room for beside it"
    axis = CostAxis(label="Seconds", shares={"Vanilla": 100.0, long: 120.0}, slower=frozenset({long}))
    figure = draw_retention(make_table({"Vanilla": (100.0, 100.0, 0.0), long: (90.0, 50.0, 0.0)}), sheet, axis)
    (text,) = [text for text in figure.texts if text.get_text().endswith(" (slower)")]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert text.get_window_extent(canvas.get_renderer()).x1 <= figure.bbox.width


def test_there_is_no_title_and_no_second_scale():
    figure = draw_retention(make_table(ROUTED))
    assert not any(axes.get_title() or axes.child_axes for axes in figure.axes)
    assert "Retention" not in [text.get_text() for text in figure.texts]
    assert figure.axes[0].get_xlabel() == "Visual tokens, % of Vanilla"


def test_a_row_with_more_tokens_than_the_baseline_stands_at_its_share():
    (axes,) = draw_retention(make_table(ROUTED | {"All tiles": (101.0, 250.0, 0.0)})).axes
    left, right = axes.get_xlim()
    assert left > 250 > right >= 0
    assert 250 in [line.get_xdata()[0] for line in axes.lines]


def test_a_far_row_stands_beneath_a_break_that_is_said():
    figure = draw_retention(make_table(ROUTED | {"Vanilla w/o dynamic res.": (30.0, 14.0, 0.0)}))
    upper, lower = figure.axes
    assert upper.get_ylim()[0] > 60 > lower.get_ylim()[1]
    assert lower.get_ylim()[0] < 30
    assert "axis broken" in [text.get_text() for text in figure.texts]
    assert names(figure)[-2:] == ["30.0", "Vanilla w/o dynamic res."]
    # Of half the rows the axis is not broken.
    half = {f"Low {place}": (30.0 + place, 14.0, 0.0) for place in range(5)}
    assert len(draw_retention(make_table(ROUTED | half)).axes) == 1


def test_a_family_has_one_hue_and_each_row_a_marker_in_contrast_with_white():
    own = looks(make_table(ROUTED | {"FastV": (90.0, 50.0, 0.0)}))
    assert len({own[title].colour for title in ROUTED if title.startswith("ViCO")}) == 1
    assert own["FastV"].colour != own["ViCO"].colour
    assert len({look.marker for title, look in own.items() if title != "Vanilla"}) == 5
    many = looks(make_table({"Vanilla": (100.0, 100.0, 0.0)} | {f"M{n}": (90.0, 50.0, 0.0) for n in range(72)}))
    assert len(set(many.values())) == 73
    for colour in (*COLOURS, INK, FAINT):
        # WCAG 2.2: relative luminance of sRGB.
        channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5


def test_a_row_without_token_counts_is_left_out():
    figure = draw_retention(make_table(ROUTED | {"Cached": (99.0, np.nan, np.nan)}))
    assert "Cached" not in names(figure)


def test_nothing_to_draw_is_said():
    with pytest.raises(ReportError, match="no row has both"):
        draw_retention(make_table({"Vanilla": (100.0, np.nan, np.nan)}))


def test_the_front_is_of_rows_that_none_surpasses():
    def point(title: str, saved: float, retention: float) -> Point:
        return Point(title=title, cost=100 - saved, retention=retention, error=0.0, look=Look("k", "o"))

    points = [
        point("worse than b in both", 40, 80),
        point("saves less than c at the same retention", 60, 70),
        point("c", 75, 70),
        point("b", 45, 90),
        point("a", 0, 100),
        point("retains less than b at the same saving", 45, 85),
    ]
    assert [point.title for point in pareto_front(points)] == ["a", "b", "c"]


def test_the_front_is_drawn_in_steps_up_to_each_row():
    (line,) = [line for line in draw_retention(make_table(ROUTED)).axes[0].lines if line.get_drawstyle() == "steps-pre"]
    # ViCO surpasses random routing; routing by image retains less and saves a tenth of a percent more.
    assert line.get_xydata().tolist() == [
        pytest.approx(point) for point in ([100, 100], [56.5, 98.5], [56.4, 88.2], [25, 80])
    ]


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        write_figure(draw_retention(make_table(ROUTED)), folder)
    for name in ("retention.pdf", "retention.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(("inches", "pixels"), [((5, 3), (1000, 600)), ((50, 10), (4000, 800))])
def test_a_large_picture_has_no_more_pixels_than_can_be_shown(tmp_path, inches, pixels):
    _, png = write_figure(Figure(figsize=inches, dpi=200), tmp_path)
    with Image.open(png) as image:
        assert image.size == pixels


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_title_can_be_drawn(tmp_path):
    titles = ("$\\frac{", "$x$ and $y", "a" * 200, "模型", "line\nbreak", "100% _{^")
    rows = {title: (90.0 + place, 60.0 - place, 50.0) for place, title in enumerate(titles)}
    write_figure(draw_retention(make_table({"Vanilla": (100.0, 100.0, 0.0)} | rows)), tmp_path)
