"""ViCO's Figure 1(b) from the numbers in its tables: score and throughput with and without ViCO, by model size.

Source:  ViCO (arXiv 2510.12793), Figure 1(b), drawn from Tables 1 and 4.
Differs: the paper's throughput is relative to InternVL3.5-38B for all models. No table prints that, so here each model
         is compared with itself without compression, as in Table 4, and models missing from Table 4 are not drawn.
         Table 4 has fixed compression rates; the one closest to ViCO's saving on Table 1's benchmarks is used. It has
         two text lengths, with one panel each. Scores are the means of Table 1, since the paper does not name the
         benchmarks of its figure. A bubble's area is the number of parameters in the model's name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vico_eval.errors import ReportError
from vico_eval.report.figures.style import COLOURS, FAINT, GRID, INK, LINE, PAGE, STYLE, TEXT
from vico_eval.report.papers.printed import PrintedRow, PublishedTable, own_averages, score

SCORES, THROUGHPUT = 1, 4
"""Numbers of ViCO's tables."""

# Percentage of a compressed tile's 256 tokens that are saved; 64 remain.
_SAVED_PER_TILE = 75.0
_AREA_PER_BILLION = 2.6
"""Area of a bubble per billion parameters, in square points."""

_COMPRESSION = re.compile(r"token compression (\d+)%")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bubble:
    """A model with and without ViCO, for one text length."""

    model: str
    billions: float
    panel: str
    """Table 4's input, such as `10 patches + 64 text tokens`."""

    base_score: float
    vico_score: float
    """Mean score over Table 1's benchmarks, 0-100."""

    tokens_saved: float
    """Mean saving of ViCO on these benchmarks, percent."""

    compression: int
    """Compression of the column of Table 4 with `speedup`, in percent of tokens."""

    speedup: float


def bubbles(scores: PublishedTable, throughput: PublishedTable) -> list[Bubble]:
    """Combine Tables 1 and 4 for the models in both, in the order of Table 4.

    Raises:
        ReportError: no model is in both.
    """
    rows = {(_billions(row.fields["model"]), row.fields["variant"], row.kind): row for row in scores.rows}
    ratios = own_averages(scores)
    found = []
    for row in throughput.rows:
        size = _billions(row.fields["model"])
        base, vico = (rows.get((size, variant, "score")) for variant in ("baseline", "ViCO"))
        ratio = np.nan if vico is None else ratios.get((vico.name, "ratio"), np.nan)
        if base is None or vico is None or np.isnan(ratio):
            continue
        saved = _SAVED_PER_TILE * ratio / 100
        compression, speedup = min(_speedups(row).items(), key=lambda entry: abs(entry[0] - saved))
        found.append(
            Bubble(
                model=vico.fields["model"].removeprefix("InternVL3.5-"),
                billions=size,
                panel=row.fields["variant"],
                base_score=_mean_score(base, scores),
                vico_score=_mean_score(vico, scores),
                tokens_saved=saved,
                compression=compression,
                speedup=speedup,
            )
        )
    if not found:
        raise ReportError(
            f"{scores.layout.title} has no model of {throughput.layout.title} with and without ViCO, so there is "
            "nothing to draw."
        )
    return found


def draw_bubbles(found: Sequence[Bubble]) -> Figure:
    """Plot mean score over first-token throughput, relative to the same model without compression.

    Each model has a hollow bubble without ViCO and a filled bubble with it.
    """
    panels = list(dict.fromkeys(bubble.panel for bubble in found))
    scores = [value for bubble in found for value in (bubble.base_score, bubble.vico_score)]
    fastest = max(bubble.speedup for bubble in found)
    key = wrap(_key(found), int(PAGE / 0.062))
    below = 0.42 + LINE * len(key)
    body = 2.3
    with mpl.rc_context(STYLE):
        width, height = PAGE, below + body + 0.28
        figure = Figure(figsize=(width, height), dpi=300)
        wide = (width - 0.5) / len(panels)
        for number, panel in enumerate(panels):
            box = ((0.42 + number * wide) / width, below / height, (wide - 0.12) / width, body / height)
            axes = figure.add_axes(box, label=panel)
            room = max(max(scores) - min(scores), 1.0)
            axes.set_ylim(min(scores) - 0.16 * room, max(scores) + 0.2 * room)
            axes.set_xlim(-0.3, fastest + 0.95)
            axes.set_xticks(np.arange(1, fastest + 0.5, 0.5))
            axes.grid(axis="y", color=GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_title(panel, fontsize=TEXT, color=INK, loc="left", pad=5)
            if number == 0:
                axes.set_ylabel("Mean score, Table 1")
            else:
                axes.tick_params(axis="y", labelleft=False)
            _draw_panel(axes, [bubble for bubble in found if bubble.panel == panel])
        label = "First-token throughput, × that of the same model without compression"
        figure.text((0.42 + width) / 2 / width, (0.12 + LINE * len(key)) / height, label, ha="center", color=INK)
        for place, words in enumerate(reversed(key)):
            figure.text(0.04 / width, (0.05 + LINE * place) / height, words, color=FAINT)
    return figure


def _draw_panel(axes: Axes, found: Sequence[Bubble]) -> None:
    colour = COLOURS[0]
    # Largest first, so that large bubbles don't hide small ones.
    for bubble in sorted(found, key=lambda bubble: -bubble.billions):
        base, vico = (1.0, bubble.base_score), (bubble.speedup, bubble.vico_score)
        area = _AREA_PER_BILLION * bubble.billions
        beside = np.sqrt(area / np.pi) + 4
        axes.plot(*zip(base, vico, strict=True), color="#B0B0B0", linewidth=1.1, zorder=2)
        axes.scatter(*base, s=area, facecolor="white", edgecolor=INK, linewidth=1.1, zorder=3)
        axes.scatter(*vico, s=area, facecolor=colour, edgecolor="white", linewidth=1.1, zorder=3)
        words: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
        title = f"{bubble.model}  {bubble.base_score:.1f}"
        axes.annotate(title, base, xytext=(-beside, 0), ha="right", color=INK, **words)
        title = f"{bubble.vico_score:.1f}, ×{bubble.speedup:.2f}"
        axes.annotate(title, vico, xytext=(beside, 0), ha="left", color=colour, **words)


def _key(found: Sequence[Bubble]) -> str:
    saved = sorted(bubble.tokens_saved for bubble in found)
    shares = sorted({bubble.compression for bubble in found})
    return (
        "Each model is normalised to itself, so throughputs of different models can't be compared here. Hollow: "
        "without ViCO; filled: with ViCO. Area: parameters. Throughput is that of the language model at "
        f"{' and '.join(f'{share}%' for share in shares)} fewer visual tokens, the column of Table 4 nearest to the "
        f"{saved[0]:.1f} to {saved[-1]:.1f}% that ViCO saves on the benchmarks of Table 1."
    )


def _billions(model: str) -> float:
    """Parameters in billions, from a name such as `InternVL3.5-30B-MoE`; NaN if the name has none."""
    found = re.search(r"(\d+(?:\.\d+)?)B\b", model)
    return float(found[1]) if found else float("nan")


def _mean_score(row: PrintedRow, table: PublishedTable) -> float:
    assert table.layout.average is not None, "Table 1 has an average"
    return float(np.mean([score(row.numbers[key]) for key in table.layout.average.benchmarks]))


def _speedups(row: PrintedRow) -> dict[int, float]:
    """Speed-ups by percentage of compressed tokens."""
    found = {_COMPRESSION.search(key): number for key, number in row.numbers.items()}
    return {int(match[1]): float(number.value) for match, number in found.items() if match}
