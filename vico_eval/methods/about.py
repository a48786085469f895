"""The fields of a method's docstring: place, models, needs, source. Reading them imports no built-in method."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vico_eval.methods.interface import CONNECTOR, PLACES, RESOLUTION
from vico_eval.methods.registry import describe, load

_FIELD = re.compile(r"^(Place|Models|Needs|Source|Differs): +(.+(?:\n {2,}.+)*)", flags=re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """The fields of a method's docstring, for lists and pages."""

    name: str
    summary: str
    """First line of its docstring."""

    place: str
    """One of `PLACES`."""

    models: str
    """Families of models that run it: `any`, or `with tiles` for those that cut images into tiles, such as InternVL.
    Follows from the place unless the docstring has a line `Models:`."""

    needs: str
    """What a checkpoint or the user has to supply; empty if nothing."""

    source: str
    """The paper or code that the method follows; empty for a plugin that names none."""

    differs: str
    """Differences from the source; empty if none."""

    @property
    def paper(self) -> str:
        """Name of the source alone, as in `FastV (arXiv 2403.06764)`."""
        return re.split(r"(?<=\))|[;:.](?:\s|$)", self.source, maxsplit=1)[0]


def about(name: str) -> About:
    """The fields of a method's docstring.

    Raises:
        ConfigError: the method is unknown, or a plugin that can't be loaded.
    """
    text = describe(name)
    fields = {key: " ".join(words.split()) for key, words in _FIELD.findall(text)}
    stated = fields.get("Place", "").split(" ")[0].rstrip(".,")
    place = stated if stated in PLACES else load(name).place
    return About(
        name=name,
        summary=text.partition("\n")[0],
        place=place,
        models=fields.get("Models", "with tiles." if place in (RESOLUTION, CONNECTOR) else "any.").rstrip("."),
        needs=fields.get("Needs", "").rstrip("."),
        source=fields.get("Source", ""),
        differs=fields.get("Differs", ""),
    )
