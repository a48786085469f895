import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vico_eval.report.figures.files import write_figure
from vico_eval.report.figures.router_scores import draw_scores
from vico_eval.report.scores.router_scores import NUM_BINS, ScoreCounts, count_scores
from vico_eval.report.tables.table import Table
from vico_eval.runs.schema import TokenAccount

from .conftest import account

NAN = float("nan")


def scored(scores, compressed=None) -> TokenAccount:
    """An account of tiles with these scores; `compressed` are the places of those at a quarter of their tokens."""
    low = len(compressed or ())
    return TokenAccount(**account(len(scores), low) | {"p_compress": scores, "compressed": compressed})


def counts(*, compressed=True, **bins: int) -> ScoreCounts:
    """Tiles by bin, as b38=3; those of the upper half are compressed."""
    tiles = np.zeros(NUM_BINS, dtype=np.int64)
    for name, number in bins.items():
        tiles[int(name[1:])] = number
    low = tiles * (np.arange(NUM_BINS) >= NUM_BINS // 2)
    return ScoreCounts(tiles=tiles, compressed=low if compressed else None)


def drawn(cells, columns=("Read", "Doc")):
    """The picture of cells (row, run, benchmark, scores, threshold); the first row is the baseline."""
    rows = list(dict.fromkeys(cell[0] for cell in cells))
    frame = pd.DataFrame(cells, columns=["row", "run", "benchmark", "scores", "threshold"])
    frame = frame.assign(
        tiles=[NAN if value is None else value.tiles.sum() for value in frame["scores"]],
        compressed_tiles=[
            NAN if value is None or value.compressed is None else value.compressed.sum() for value in frame["scores"]
        ],
    )
    table = Table(
        caption="Scores",
        columns=columns,
        digits={},
        rows=(),
        baseline=rows[0],
        notes=(),
        summary=pd.DataFrame(index=rows),
    )
    return draw_scores(table, frame)


def histograms(axes, what: str = "tiles") -> list[np.ndarray]:
    """Heights of a panel's histograms, from above, as shares of the full height."""
    (shapes,) = [shape for shape in axes.collections if shape.get_label() == what]
    outlines = [path.vertices[: 2 * NUM_BINS + 2] for path in shapes.get_paths()]
    return [(outline[1:-1:2, 1] - outline[0, 1]) / (0.22 / 0.36) for outline in outlines]


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


BASE = [("Vanilla", 0, name, None, NAN) for name in ("Read", "Doc")]


def test_scores_are_counted_by_bin_and_decision():
    # Bins are 0.025 wide: 0.9 and 0.91 lie in the one from 0.9, 1.0 in the last, 0.3 in the one from 0.3.
    found = count_scores([scored([0.9, 0.3], [0]), scored([0.91, 1.0], [1]), scored([], [])])
    assert {place / NUM_BINS: count for place, count in enumerate(found.tiles) if count} == {
        0.3: 1,
        0.9: 2,
        0.975: 1,
    }
    assert {place / NUM_BINS: count for place, count in enumerate(found.compressed) if count} == {0.9: 1, 0.975: 1}


@pytest.mark.parametrize(
    "accounts",
    [[], [scored([], [])], [TokenAccount(**account(4))], [scored([0.9], [0]), TokenAccount(**account(4))]],
)
def test_without_the_scores_of_all_tiles_there_are_no_counts(accounts):
    assert count_scores(accounts) is None


def test_accounts_that_do_not_say_which_tiles_were_compressed_are_counted_without():
    found = count_scores([scored([0.9], [0]), scored([0.8])])
    assert found.tiles.sum() == 2
    assert found.compressed is None


def test_a_histogram_a_row_on_one_scale_and_their_average():
    figure = drawn(
        [*BASE, ("ViCO", 1, "Read", counts(b5=90, b25=10), 0.5), ("ViCO", 1, "Doc", counts(b5=1, b6=8, b25=1), 0.5)]
    )
    read, doc, average = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["Read", "Doc", "Avg."]
    # The full height is 20%: 90% and 80% are cut off with their number, 10% is half as high.
    assert histograms(read)[0][[5, 25]] == pytest.approx([1, 0.5])
    assert histograms(read, "compressed")[0][[5, 25]] == pytest.approx([0, 0.5])
    assert histograms(doc)[0][[5, 6, 25]] == pytest.approx([0.5, 1, 0.5])
    # Benchmarks count alike: (90 + 10) / 2, (0 + 80) / 2 and (10 + 10) / 2 percent.
    assert histograms(average)[0][[5, 6, 25]] == pytest.approx([1, 1, 0.5])
    assert words(read) == ["90", "10%"]
    assert words(average) == ["50", "10%"]
    assert [label.get_text() for label in read.get_yticklabels()] == ["ViCO"]


def test_thresholds_are_drawn_where_a_record_has_one():
    cells = [
        ("A", 1, "Read", counts(b5=1), 0.5),
        ("A", 2, "Read", counts(b5=1), 0.7),
        ("B", 3, "Read", counts(b5=1), NAN),
    ]
    (read, _) = drawn([BASE[0], *cells], columns=("Read",)).axes
    dashed = [line for line in read.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [0.5, 0.7]
    # Both stand in the upper of the two lines.
    assert {line.get_ydata()[0] for line in dashed} == {0}


def test_of_high_bars_side_by_side_the_highest_has_its_number():
    figure = drawn([*BASE, ("ViCO", 1, "Read", counts(b10=30, b11=25, b38=45), NAN)])
    assert words(figure.axes[0]) == ["30", "45", "45%"]


def test_what_is_unknown_is_a_dash():
    figure = drawn([*BASE, ("ViCO", 1, "Read", counts(b5=1, compressed=False), NAN), ("ViCO", 1, "Doc", None, NAN)])
    read, doc, average = figure.axes
    assert (len(histograms(read)), histograms(read, "compressed")) == (1, [])
    assert words(read)[-1] == "–"
    assert (histograms(doc), words(doc)) == ([], ["–"])
    assert (histograms(average), words(average)) == ([], ["–"])


def test_a_row_of_which_a_run_has_no_scores_has_none():
    assert drawn([*BASE, ("ViCO", 1, "Read", counts(b5=1), NAN), ("ViCO", 2, "Read", None, NAN)]) is None


def test_nothing_is_drawn_without_scores():
    assert drawn(BASE) is None


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 6)])
def test_names_stay_inside_the_picture_and_off_each_other(rows, columns):
    names = tuple(f"Benchmark {place} with a long name" for place in range(columns))
    cells = [
        (f"{place} method with a title that is long", place, name, counts(b5=7, b39=1), 0.5)
        for place in range(rows)
        for name in names
    ]
    figure = drawn(cells, names)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    titles = [axes.title.get_window_extent(renderer) for axes in figure.axes]
    numbers = [axes.texts[-1].get_window_extent(renderer) for axes in figure.axes]
    rows_named = [label.get_window_extent(renderer) for label in figure.axes[0].get_yticklabels()]
    for boxes in (titles, rows_named, [text.get_window_extent(renderer) for text in figure.texts]):
        assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :])
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)
    histograms_at = [axes.get_window_extent(renderer) for axes in figure.axes]
    assert not any(number.overlaps(box) for number in numbers for box in histograms_at)


def test_the_same_scores_give_the_same_bytes(tmp_path):
    cells = [*BASE, ("$\\frac{", 1, "Read", counts(b5=3, b39=1), 0.5)]
    for stem in ("first", "second"):
        write_figure(drawn(cells), tmp_path, stem)
    for kind in ("pdf", "png"):
        assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()
