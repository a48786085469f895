from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection

from vico_eval.report.figures.bars import draw_bars
from vico_eval.report.tables.table import Row, Table

NAN = float("nan")


def table(scores, ratios=(), columns=("Read", "Video-MME w/ sub")) -> Table:
    """Scores by title, and ratios, each a value a column and `Avg.`; the first row is the baseline."""
    rows = [
        Row(title=title, kind=kind, values=dict(zip((*columns, "Avg."), values, strict=True)), competes=True)
        for kind, of in (("score", scores), ("ratio", dict(ratios)))
        for title, values in of.items()
    ]
    summary = pd.DataFrame(index=list(scores))
    baseline = next(iter(scores))
    return Table(
        caption="Bars", columns=columns, digits={}, rows=tuple(rows), baseline=baseline, notes=(), summary=summary
    )


def rows(figure) -> list[PolyCollection]:
    return [shape for shape in figure.axes[0].collections if isinstance(shape, PolyCollection)]


def bars(figure) -> dict[str, list[float]]:
    """Heights by row, in the order of the columns."""
    return {row.get_label(): [max(bar.vertices[:, 1]) for bar in row.get_paths()] for row in rows(figure)}


SCORES = {"Vanilla": (80.0, 40.0, 100.0), "Random": (40.0, 30.0, 58.3), "ViCO": (72.0, 42.0, 95.0)}
RATIOS = {"Random": (50.0, 50.0, 50.0), "ViCO": (60.0, 40.0, 50.0)}


def test_bars_are_retention_by_benchmark_and_ratios():
    drawn = draw_bars(table(SCORES, RATIOS))
    # 40 / 80, 30 / 40; 72 / 80, 42 / 40; the average is the table's.
    assert bars(drawn["benchmarks"]) == {
        "Random": pytest.approx([50, 75, 58.3]),
        "ViCO": pytest.approx([90, 105, 95]),
    }
    assert bars(drawn["ratios"]) == {"Random": [50, 50, 50], "ViCO": [60, 40, 50]}
    names = [label.get_text() for label in drawn["ratios"].axes[0].get_xticklabels()]
    assert names == ["Read", "Video-MME\nw/\nsub", "Avg."]


def test_a_row_has_one_colour_in_both():
    drawn = draw_bars(table(SCORES, {"ViCO": RATIOS["ViCO"]}))
    colours = [
        next(tuple(row.get_facecolor()[0]) for row in rows(figure) if row.get_label() == "ViCO")
        for figure in drawn.values()
    ]
    assert colours[0] == colours[1]


def test_rows_differ_in_colour_and_hatching():
    values = {f"Method {place}": (90.0,) * 3 for place in range(57)}
    looks = [(tuple(row.get_facecolor()[0]), row.get_hatch()) for row in rows(draw_bars(table(values))["benchmarks"])]
    assert len(set(looks)) == len(looks) == 56
    # Without colours, too, a bar differs from its neighbours.
    assert all(one != other for (_, one), (_, other) in pairwise(looks))


def test_the_unknown_and_percentages_of_zero_are_dashes_and_far_bars_end_with_their_number():
    scores = {"Vanilla": (0.0, 10.0, 100.0), "ViCO": (5.0, NAN, NAN), "Other": (5.0, 90.0, 100.0)}
    drawn = draw_bars(table(scores))["benchmarks"]
    words = [text.get_text() for text in drawn.axes[0].texts]
    assert words == ["–", "–", "–", "–", "900"]
    assert bars(drawn) == {"ViCO": [], "Other": [130, 100]}
    assert drawn.axes[0].get_ylim()[1] > 130


@pytest.mark.parametrize(
    ("given", "stems"),
    [
        (table(SCORES), ["benchmarks"]),
        (table({"Vanilla": SCORES["Vanilla"]}), []),
        (table({"Vanilla": (NAN,) * 3, "ViCO": (NAN,) * 3}, {"ViCO": (NAN,) * 3}), []),
        # A baseline that routes, or has no accounts, has ratios of its own.
        (table(SCORES, {"Vanilla": (NAN,) * 3} | RATIOS), ["benchmarks", "ratios"]),
    ],
)
def test_only_what_has_numbers_is_drawn(given, stems):
    assert list(draw_bars(given)) == stems


@pytest.mark.parametrize("number", [2, 11, 25])
def test_names_overlap_neither_each_other_nor_the_bars(number):
    columns = ("DocVQA", "RealWorldQA", "MMBench V1.1", "Video-MME w/o sub")
    values = {f"Method number {place}": (90.0,) * 5 for place in range(number)}
    for figure in draw_bars(table(values, values, columns)).values():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        axes = figure.axes[0]
        renderer = canvas.get_renderer()
        below = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
        legend = figure.legends[0].get_window_extent(renderer)
        assert not any(one.overlaps(other) for one, other in pairwise(below))
        assert min(box.y0 for box in below) >= 0
        assert legend.y0 >= axes.get_window_extent(renderer).y1 - 1
        assert legend.x1 <= figure.bbox.width
