"""Terminal output as literal text, without markup or escape sequences, in any encoding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from vico_eval.plain_text import shown


class SafeConsole(Console):
    """A console that prints text literally and escapes control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with unsafe text escaped. All output passes through here; control segments (progress bars) and styles
        are kept."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text, self.encoding), segment.style)


@dataclass(frozen=True, slots=True)
class Words:
    """Literal text in a table, measured as it appears in the terminal's encoding."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._in(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._in(options))

    def _in(self, options: ConsoleOptions) -> Text:
        return Text(shown(self.text, options.encoding), style=self.style)


def lines_of(texts: Iterable[str], style: str = "") -> Iterator[Words]:
    """Wrap each text for printing."""
    return (Words(text, style) for text in texts)
