import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vico_eval.report.figures.dots import draw_benchmarks, draw_ratios
from vico_eval.report.figures.style import COLUMN, Sheet
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
        caption="Dots", columns=columns, digits={}, rows=tuple(rows), baseline=baseline, notes=(), summary=summary
    )


def intervals(*lines) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=["row", "benchmark", "low", "high"])


def dots(axes) -> list[tuple[float, float]]:
    """Value and level of each dot of a panel; the dashed line at 100 is none."""
    return [tuple(line.get_xydata()[0].tolist()) for line in axes.lines if line.get_linestyle() == "None"]


SCORES = {"Vanilla": (80.0, 40.0, 100.0), "Random": (40.0, 30.0, 58.3), "ViCO": (72.0, 42.0, 95.0)}
RATIOS = {"Random": (50.0, 50.0, 50.0), "ViCO": (60.0, 40.0, 50.0)}


def test_dots_are_retention_by_benchmark_with_intervals_and_ratios():
    found = intervals(("ViCO", "Read", 81.0, 99.0), ("Random", "Avg.", 50.0, np.inf))
    read, video, average = draw_benchmarks(table(SCORES, RATIOS), found).axes
    # 40 / 80, 30 / 40; 72 / 80, 42 / 40; the average is the table's. Rows stand beneath each other as in the table.
    assert dots(read) == [(50.0, 0.0), (90.0, 1.0)]
    assert dots(video) == [(75.0, 0.0), (105.0, 1.0)]
    assert dots(average) == [(58.3, 0.0), (95.0, 1.0)]
    ((ends,),) = ([line.tolist() for line in own.get_segments()] for own in read.collections)
    assert ends == [[81.0, 1.0], [99.0, 1.0]]
    # An interval without an end goes to the edge.
    ((ends,),) = ([line.tolist() for line in own.get_segments()] for own in average.collections)
    assert ends == [[50.0, 0.0], [average.get_xlim()[1], 0.0]]
    ratios = draw_ratios(table(SCORES, RATIOS))
    assert [dots(axes) for axes in ratios.axes] == [[(50, 0), (60, 1)], [(50, 0), (40, 1)], [(50, 0), (50, 1)]]
    assert [label.get_text() for label in read.get_yticklabels()] == ["Random", "ViCO"]


def test_the_unknown_and_percentages_of_zero_are_dashes_and_far_rows_end_with_their_number():
    scores = {"Vanilla": (0.0, 10.0, 100.0), "ViCO": (5.0, NAN, NAN), "Other": (5.0, 90.0, 100.0)}
    drawn = draw_benchmarks(table(scores), intervals())
    words = [[text.get_text().strip() for text in axes.texts] for axes in drawn.axes]
    assert words == [["–", "–"], ["–", "900"], ["–"]]
    assert drawn.axes[0].get_xlim()[1] < 140


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
    drawn = {"benchmarks": draw_benchmarks(given, intervals()), "ratios": draw_ratios(given)}
    assert [stem for stem, figure in drawn.items() if figure is not None] == stems


def test_a_column_is_not_longer_than_its_page():
    columns = tuple(f"Benchmark {number}" for number in range(16))
    many = table({f"Method {number}": (90.0,) * 17 for number in range(20)}, {}, columns)
    assert draw_benchmarks(many, intervals(), Sheet(width=COLUMN)) is None
    assert draw_benchmarks(many, intervals(), Sheet()) is not None


@pytest.mark.parametrize("sheet", [Sheet(), Sheet(width=COLUMN)])
@pytest.mark.parametrize("number", [2, 11, 25])
def test_text_overlaps_nothing_and_stays_inside_at_8_points(sheet, number):
    columns = ("DocVQA", "RealWorldQA", "MMBench V1.1", "Video-MME w/o sub", "MMMU", "POPE")
    values = {f"Method number {place} with a long name": (90.0,) * 7 for place in range(number)}
    given = table(values, values, columns)
    for figure in filter(None, (draw_benchmarks(given, intervals(), sheet), draw_ratios(given, sheet))):
        assert figure.get_size_inches()[0] == sheet.width
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        texts = [*figure.texts]
        for axes in figure.axes:
            texts += [axes.title, *axes.get_yticklabels()]
            low, high = axes.get_xlim()
            texts += [text for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
        shown = [text for text in texts if text.get_text()]
        assert {text.get_fontsize() for text in shown} == {8.0}
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in shown]
        assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :])
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)
