import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from vico_eval.errors import ReportError
from vico_eval.report.figures.files import write_figure
from vico_eval.report.figures.labels import Label, place_labels
from vico_eval.report.figures.retention import Point, draw_retention
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


def labels(figure):
    return [text for text in figure.axes[0].texts if text.get_text()]


def test_every_row_is_named_with_its_retention():
    names = [text.get_text() for text in labels(draw_retention(make_table(ROUTED)))]
    assert sorted(names) == sorted(f"{title}\n{values[0]:.1f}%" for title, values in ROUTED.items())


def test_names_overlap_neither_each_other_nor_the_points():
    figure = draw_retention(make_table(ROUTED))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Text's own extent: an annotation's includes the line that leads to its point.
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in labels(figure)]
    assert len(boxes) == len(ROUTED)
    points = figure.axes[0].transData.transform([(100 - values[1], values[0]) for values in ROUTED.values()])
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
        assert not any(box.contains(x, y) for x, y in points)


@pytest.mark.parametrize(("lines", "side"), [([], "left"), ([(1, 0)], "right"), ([(1, 0), (-1, 0)], "center")])
def test_a_name_keeps_off_lines(lines, side):
    figure = Figure(figsize=(4, 4))
    axes = figure.add_axes((0, 0, 1, 1))
    x, y = axes.transData.transform((0.5, 0.5))
    label = Label(text="Name", at=(0.5, 0.5), mark=Bbox.from_extents(x - 5, y - 5, x + 5, y + 5), colour="k")
    place_labels(figure, axes, [label], [Bbox.from_extents(x, y, x + 150 * right, y + 150 * up) for right, up in lines])
    # The first free place of right, left and above; a name to the right is aligned left.
    assert axes.texts[0].get_horizontalalignment() == side


def test_a_name_keeps_off_the_front():
    # Behind `Near` the front goes on level, just beneath it, where its name would be.
    rows = {"Vanilla": (100.0, 100.0, 0.0), "Near": (95.0, 80.0, 0.0), "Far": (94.8, 40.0, 0.0)}
    figure = draw_retention(make_table(rows))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (name,) = [text for text in labels(figure) if text.get_text().startswith("Near")]
    step = Bbox(figure.axes[0].transData.transform([(20, 94.8), (60, 94.8)])).padded(1)
    assert not Text.get_window_extent(name, canvas.get_renderer()).overlaps(step)


def test_the_upper_axis_reads_compressed_tiles_only_where_all_rows_agree():
    assert len(draw_retention(make_table(ROUTED)).axes[0].child_axes) == 1
    # With tokens dropped in the decoder too, a compressed tile saves more in that row than in the others.
    mixed = ROUTED | {"ViCO + FastV": (95.0, 30.0, 58.0)}
    assert not draw_retention(make_table(mixed)).axes[0].child_axes
    # Against a baseline that compresses tiles itself no tile is worth a share of its tokens.
    compressing = {"Vanilla": (100.0, 100.0, 58.0), "Other": (101.0, 176.0, 0.0), "More": (80.0, 44.0, 100.0)}
    assert not draw_retention(make_table(compressing)).axes[0].child_axes
    draw_retention(make_table({"Vanilla": (100.0, 100.0, 58.0), "Same": (90.0, 100.0, 58.0)}))


def test_a_far_row_is_drawn_at_the_edge_with_its_number():
    figure = draw_retention(make_table(ROUTED | {"Vanilla w/o dynamic res.": (30.0, 14.0, 0.0)}))
    assert "Vanilla w/o dynamic res.\n30.0% (below the scale)" in [text.get_text() for text in labels(figure)]
    assert figure.axes[0].get_ylim()[0] > 60


def test_a_row_without_token_counts_is_left_out():
    figure = draw_retention(make_table(ROUTED | {"Cached": (99.0, np.nan, np.nan)}))
    assert not any("Cached" in text.get_text() for text in labels(figure))


def test_nothing_to_draw_is_said():
    with pytest.raises(ReportError, match="nothing to draw"):
        draw_retention(make_table({"Vanilla": (100.0, np.nan, np.nan)}))


def test_the_front_is_of_rows_that_none_surpasses():
    def point(title: str, saved: float, retention: float) -> Point:
        words = {"colour": "k", "marker": "o", "is_hollow": False, "is_baseline": False}
        return Point(title=title, saved=saved, retention=retention, error=0.0, shown=retention, **words)

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
        pytest.approx(point) for point in ([0, 100], [43.5, 98.5], [43.6, 88.2], [75, 80])
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
