"""Write figures to files."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from vico_eval.report.figures.style import STYLE

_MOST_PIXELS = 4000
"""Limit on a PNG's side; twenty rows of seventeen benchmarks would need ten thousand pixels and take seconds to
write."""


def write_figure(figure: Figure, out: Path, stem: str = "retention") -> tuple[Path, Path]:
    """Write `<stem>.pdf` (vector) and `<stem>.png`; the same figure gives the same bytes.

    The PNG has the figure's resolution, reduced if a side would exceed `_MOST_PIXELS`.
    """
    pdf, png = out / f"{stem}.pdf", out / f"{stem}.png"
    with mpl.rc_context(STYLE):
        # Dates and versions would make every rerun differ.
        figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None, "Creator": None})
        dpi = min(figure.dpi, _MOST_PIXELS / max(figure.get_size_inches()))
        figure.savefig(png, dpi=dpi, metadata={"Software": None})
    return pdf, png
