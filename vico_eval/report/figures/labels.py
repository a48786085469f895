"""Names beside a picture: moved apart where they would touch, and cut to the room that there is."""

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vico_eval.report.figures.style import short


def spread(
    heights: Sequence[float], least: float, low: float = float("-inf"), high: float = float("inf")
) -> list[float]:
    """Descending heights moved apart to at least a distance, as little as may be in all (isotonic regression).

    Args:
        heights: in descending order.
        least: distance of neighbours.
        low: no height is beneath it; the lowest ones are moved up.
        high: nor above it; there must be room for all.
    """
    # Where a block of neighbours touches, it stands around the mean of what its members want.
    blocks: list[tuple[float, int]] = []
    for place, height in enumerate(heights):
        mean, count = height + place * least, 1
        while blocks and blocks[-1][0] < mean:
            other, size = blocks.pop()
            mean, count = (mean * count + other * size) / (count + size), count + size
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    number = len(heights)
    return [
        max(min(mean - place * least, high - place * least), low + (number - 1 - place) * least)
        for place, mean in enumerate(flat)
    ]


def fitting(figure: Figure, text: str, width: float) -> str:
    """Text in one line, cut where it is wider than so many inches, in the type of the picture's style."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    ruler = figure.text(0, 0, "")

    def inches(shown: str) -> float:
        ruler.set_text(shown)
        return float(ruler.get_window_extent(renderer).width) / figure.dpi

    longest = len(text)
    while longest > 1 and inches(short(text, longest)) > width:
        longest -= 1
    ruler.remove()
    return short(text, longest)
