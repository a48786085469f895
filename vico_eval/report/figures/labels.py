"""Labels next to a figure: spread apart so that they don't overlap, and shortened to fit."""

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vico_eval.report.figures.style import short


def spread(
    heights: Sequence[float], least: float, low: float = float("-inf"), high: float = float("inf")
) -> list[float]:
    """Move heights apart to a minimum distance with the least total displacement (isotonic regression).

    Args:
        heights: the wanted heights, in descending order.
        least: minimum distance between neighbours.
        low: lower bound; the lowest heights are moved up to it.
        high: upper bound; there must be room for all heights.
    """
    # A block of touching neighbours is centred on the mean of its members' wanted heights.
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
    """Text on one line, shortened to at most `width` inches in the figure's font."""
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
