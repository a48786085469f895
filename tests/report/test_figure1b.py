"""ViCO's Figure 1(b) from the numbers under `results/published`."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vico_eval.commands.work.papers import print_papers
from vico_eval.errors import OutputError, ReportError
from vico_eval.report.figures.files import write_figure
from vico_eval.report.papers.figure1b import SCORES, THROUGHPUT, Bubble, bubbles, draw_bubbles
from vico_eval.report.papers.layout import layouts, published_dir
from vico_eval.report.papers.printed import read_table


def vico(number):
    (layout,) = layouts("vico", number)
    return read_table(published_dir(), layout)


@pytest.fixture(scope="module")
def found() -> list[Bubble]:
    return bubbles(vico(SCORES), vico(THROUGHPUT))


def test_models_of_both_tables_are_there_once_for_each_length_of_text(found):
    # Table 1 also has 4B and 14B, of which no throughput is printed.
    assert [(bubble.model, bubble.billions) for bubble in found if "512" in bubble.panel] == [
        ("8B", 8),
        ("30B-MoE", 30),
        ("38B", 38),
        ("241B-MoE", 241),
    ]
    assert {bubble.panel for bubble in found} == {"10 patches + 64 text tokens", "10 patches + 512 text tokens"}


def test_numbers_are_the_printed_ones(found):
    (bubble,) = [bubble for bubble in found if bubble.model == "8B" and "64" in bubble.panel]
    # 84.0, 86.5, 77.6, 68.5, 88.7, 2380 / 28 = 85, 79.5, 67.5, 73.4: 710.7 / 9. ViCO keeps 99.597% of it.
    assert bubble.base_score == pytest.approx(710.7 / 9)
    assert 100 * bubble.vico_score / bubble.base_score == pytest.approx(99.597, abs=1e-3)
    # 69.11% of the tiles at a quarter of their tokens; of 25, 50 and 75%, 50 is the nearest.
    assert bubble.tokens_saved == pytest.approx(0.75 * 69.11, abs=0.01)
    assert (bubble.compression, bubble.speedup) == (50, 1.97)


def test_bubbles_stand_at_their_numbers_with_areas_by_parameters(found):
    left, right = draw_bubbles(found).axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == list(dict.fromkeys(b.panel for b in found))
    drawn = {tuple(dots.get_offsets()[0]): dots.get_sizes()[0] for dots in left.collections}
    own = [bubble for bubble in found if bubble.panel == left.get_title(loc="left")]
    assert set(drawn) == {place for b in own for place in ((1.0, b.base_score), (b.speedup, b.vico_score))}
    areas = {b.billions: drawn[b.speedup, b.vico_score] for b in own}
    assert areas[241] / areas[8] == pytest.approx(241 / 8)


def test_names_overlap_neither_each_other_nor_the_edge(found):
    figure = draw_bubbles(found)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for axes in figure.axes for text in axes.texts]
    assert len(boxes) == 2 * len(found)
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :])
    frames = [axes.get_window_extent(canvas.get_renderer()) for axes in figure.axes]
    assert all(any(frame.x0 < box.x0 and box.x1 < frame.x1 for frame in frames) for box in boxes)


def test_tables_without_a_common_model_are_an_error():
    with pytest.raises(ReportError, match="nothing to draw"):
        bubbles(vico(5), vico(THROUGHPUT))


def test_the_same_numbers_give_the_same_bytes(tmp_path, found):
    for stem in ("first", "second"):
        write_figure(draw_bubbles(found), tmp_path, stem)
    for kind in ("pdf", "png"):
        assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()


def test_it_is_drawn_where_it_is_asked_for(tmp_path):
    print_papers(paper="vico", number=4, out=tmp_path)
    assert not list(tmp_path.rglob("*.png"))
    print_papers(paper="internvl-x", number=1, out=tmp_path / "other", figure=True)
    assert (tmp_path / "other" / "vico" / "figure1b.pdf").exists()
    print_papers(paper="vico", number=4, out=tmp_path, figure=True)
    pictures = sorted(path.name for path in (tmp_path / "vico").glob("figure1b.*"))
    assert pictures == ["figure1b.pdf", "figure1b.png"]
    (tmp_path / "vico" / "figure1b.pdf").unlink()
    (tmp_path / "vico" / "figure1b.pdf").mkdir()
    with pytest.raises(OutputError, match="Choose another folder"):
        print_papers(paper="vico", number=4, out=tmp_path, figure=True)
