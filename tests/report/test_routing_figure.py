from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from vico_eval.report.figures.routing import RoutedImage, draw_routing, write_png


def routed(columns=4, rows=3, *, compressed=(), thumbnail=True, **changes) -> RoutedImage:
    """Grey tiles of 8 px, of 16 visual tokens or of 4 where they are compressed."""
    number = columns * rows + thumbnail
    image = RoutedImage(
        title="page.png",
        method="vico",
        width=100 * columns,
        height=100 * rows,
        columns=columns,
        rows=rows,
        tiles=np.full((number, 8, 8, 3), 128, dtype=np.uint8),
        p_compress=tuple(np.linspace(0, 1, number)),
        compressed=tuple(place in compressed for place in range(number)),
        visual_tokens=tuple(4 if place in compressed else 16 for place in range(number)),
        visual_tokens_uncompressed=16 * number,
    )
    return replace(image, **changes)


def pixels(image: RoutedImage) -> np.ndarray:
    canvas = FigureCanvasAgg(draw_routing(image))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def texts(image: RoutedImage) -> list[str]:
    return [text.get_text() for text in draw_routing(image).axes[0].texts]


def test_every_tile_has_its_score():
    image = routed(p_compress=tuple(place / 100 for place in range(13)))
    assert [text for text in texts(image) if text[:2] in ("0.", "1.")] == [f"{place / 100:.2f}" for place in range(13)]


def test_totals_count_the_thumbnail():
    # Three of 13 tiles at 4 tokens: 13 * 16 - 3 * 12 = 172 of 208.
    image = routed(compressed={0, 5, 12})
    assert image.totals == "3 of 13 tiles compressed, 172 of 208 visual tokens (83%)"
    assert image.totals in texts(image)
    assert routed(1, 1, thumbnail=False).totals == "0 of 1 tile compressed, 16 of 16 visual tokens (100%)"


def test_the_picture_differs_where_a_tile_is_compressed_and_only_there():
    plain = pixels(routed())
    # The words above and the colours' meaning below are 0.86 and 0.44 inches high, at 160 dpi.
    body = slice(int(0.86 * 160), plain.shape[0] - int(0.44 * 160))
    for place, (row, column) in {0: (0, 0), 6: (1, 2), 11: (2, 3)}.items():
        changed = (pixels(routed(compressed={place})) != plain).any(axis=-1)[body]
        # 4 x 3 square tiles 7.4 inches wide are 296 px each, 45 px from the left.
        inside = (slice(296 * row, 296 * (row + 1)), slice(45 + 296 * column, 45 + 296 * (column + 1)))
        assert changed[inside].mean() > 0.9
        assert changed.sum() == changed[inside].sum()


def test_a_compressed_tile_is_darker_also_without_colours():
    grey = [float(pixels(routed(1, 1, thumbnail=False, compressed=done))[150:500, 60:400].mean()) for done in ((), {0})]
    assert grey[1] < grey[0] - 10


@pytest.mark.parametrize(
    ("columns", "rows", "shape"),
    [(4, 3, (400, 300)), (8, 5, (3200, 2000)), (40, 1, (9000, 30)), (1, 12, (300, 9000)), (1, 12, (20, 9000))],
)
def test_scores_are_readable_and_inside_their_tiles(columns, rows, shape):
    figure = draw_routing(routed(columns, rows, width=shape[0], height=shape[1]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    for text, image in zip(axes.texts, axes.images, strict=False):
        if text.get_text() == "thumbnail":
            break
        assert text.get_fontsize() >= 5
        label, tile = text.get_bbox_patch().get_window_extent(), image.get_window_extent(canvas.get_renderer())
        assert label.x0 >= tile.x0 - 1
        assert label.x1 <= tile.x1
        assert label.height < tile.height / 2
    for text in axes.texts:
        assert text.get_window_extent(canvas.get_renderer()).x1 <= figure.bbox.width


def test_the_file_is_as_large_as_said_and_repeats_byte_for_byte(tmp_path):
    for name in ("first.png", "second.png"):
        write_png(draw_routing(routed(title="$\\frac{ of 100%")), tmp_path / name)
    with Image.open(tmp_path / "first.png") as picture:
        # Margins of 0.28 inches, a grid of 7.4, 0.3 between, a thumbnail of 0.4 * 5.55; 5.55 of grid and 1.3 of words.
        assert picture.size == (int(160 * (0.56 + 7.4 + 0.3 + 2.22)), int(160 * (5.55 + 1.3)))
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
