"""Model cards, one YAML file per system (a row of a table), and the checkpoints for each size or table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, TypeAdapter

from vico_eval.budgets import ShareArgument
from vico_eval.errors import ConfigError, unknown_name
from vico_eval.paths import is_folder, models_dir
from vico_eval.schemas import Closed
from vico_eval.suites import Family, Suite
from vico_eval.yaml_files import read_yaml

KindName = Literal["internvl", "qwen2_5_vl", "qwen3_vl"]
"""Kinds of checkpoints, as the names of lmms-eval's models end."""

Weights = Literal["base", "vico", "pvtc", "lvtc", "full"]

BUILT_IN: Mapping[Family, str] = {"vico": "tiny", "internvl-x": "internvl-x"}
"""Entry in checkpoints.yaml with a family's built-in small checkpoints."""


class Card(Closed):
    """One system: the title of its row and how lmms-eval runs it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    """The row's name in a table."""

    titles: dict[KindName, str] = Field(default_factory=dict)
    """The same by kind of checkpoint, where it is another one than on InternVL."""

    family: Family = "vico"
    """Family whose tables have this row; a suite names the family of its rows."""

    order: int
    """Sort key of a table's rows. The first row counts as 100%."""

    description: str
    lmms_model: str
    """Model name for lmms-eval's `--model`."""

    weights: Weights
    """Kind of checkpoint that becomes `pretrained`."""

    flash_from: Weights | None = None
    """Kind of checkpoint that supplies the low connector and the router, if `weights` has none."""

    ratio_from: str | None = None
    """System whose run in the same table sets this one's compression ratio, unless budgets are given."""

    share_argument: ShareArgument = "target_ratio"
    """Argument that passes a budget to the method, if it takes one."""

    seeds: tuple[int, ...] = ()
    """Seeds, one run each; empty for deterministic systems."""

    model_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """The method's arguments, in the form of lmms-eval's `--model_args`."""


class Checkpoints(Closed):
    """The checkpoints for one size or table: hub ids, folders or names of built-in checkpoints."""

    base: str
    vico: str | None = None
    pvtc: str | None = None
    lvtc: str | None = None
    full: str | None = None
    trained_by: str | None = None
    """Command that trains the built-in checkpoints."""

    kind: KindName = "internvl"
    """What they are."""

    model_args: dict[str, dict[str, str | int | float | bool]] = Field(default_factory=dict)
    """Extra arguments with these checkpoints, by system, in addition to those on the card."""

    def of(self, weights: Weights) -> str:
        """The checkpoint for a card's `weights` or `flash_from`.

        Raises:
            ConfigError: no such checkpoint is listed.
        """
        checkpoint: str | None = getattr(self, weights)
        if checkpoint is None:
            raise ConfigError(
                f"checkpoints.yaml lists no `{weights}` checkpoint with {self.base}, but a row of this table needs "
                "one. Add it."
            )
        return checkpoint


def load_cards(models: Path, family: str = "vico") -> dict[str, Card]:
    """Load a family's cards from `models/systems`, keyed by name, in the row order of its tables.

    Raises:
        ConfigError: the family is unknown, a file is not a valid card, or `ratio_from` names an unknown system or one
            with several seeds; the message names the file.
    """
    if family not in get_args(Family):
        raise unknown_name("family", family, get_args(Family))
    cards: dict[str, Card] = {}
    for path in sorted((models / "systems").glob("*.yaml")):
        card = read_yaml(TypeAdapter(Card), path)
        if card.name != path.stem:
            raise ConfigError(f"{path} describes system `{card.name}`; expected the file's name, `{path.stem}`.")
        if card.family == family:
            cards[card.name] = card
    for card in cards.values():
        if card.ratio_from is not None and card.ratio_from not in cards:
            raise unknown_name("system", card.ratio_from, cards, where=f"ratio_from of {card.name}.yaml")
        if card.ratio_from is not None and cards[card.ratio_from].seeds:
            raise ConfigError(
                f"ratio_from in {card.name}.yaml is {card.ratio_from}, which has one run per seed. Name a system with "
                "one run."
            )
    return dict(sorted(cards.items(), key=lambda item: item[1].order))


def load_checkpoints(models: Path) -> dict[str, Checkpoints]:
    """Load the checkpoints from `models/checkpoints.yaml`, by size or table.

    Raises:
        ConfigError: the file is missing or has a key that is not a field of `Checkpoints`.
    """
    return read_yaml(TypeAdapter(dict[str, Checkpoints]), models / "checkpoints.yaml")


def find_checkpoints(given: str | None, suite: Suite, *, is_small: bool = False) -> Checkpoints:
    """Resolve `--checkpoint` for a suite.

    Args:
        given: a size in checkpoints.yaml or its ending (`8B`), a folder or hub id for all rows, or `base=...,vico=...`;
            None for the suite's default.
        suite: the suite to run.
        is_small: use the built-in checkpoints if the suite has no default.

    Raises:
        ConfigError: nothing was given and there is no default, or `given` has none of these forms.
    """
    known = load_checkpoints(models_dir())
    given = given if given is not None else suite.checkpoints or (BUILT_IN[suite.cards] if is_small else None)
    if given is None:
        raise ConfigError(
            f"suite {suite.name} needs --checkpoint: a size ({', '.join(known)}), a folder or hub id for all rows, or "
            "base=...,vico=... with one for each kind of weights."
        )
    if "=" in given:
        return _named_checkpoints(given)
    # The ending of a full model name such as InternVL3-8B does not select it.
    sizes = [size for size in known if given == size or (size[0].isdigit() and given in _ends(size))]
    if len(sizes) == 1:
        return known[sizes[0]]
    if given.strip() and ("/" in given or is_folder(Path(given)) or is_folder(models_dir() / given)):
        return Checkpoints.model_validate(dict.fromkeys(get_args(Weights), given))
    raise unknown_name("checkpoint", given, known, where="--checkpoint (a folder or hub id has a slash)")


def _ends(size: str) -> tuple[str, str]:
    """Short names of a size: 30B-A3B and 30B for 3.5-30B-A3B."""
    end = size.partition("-")[2]
    return end, end.partition("-")[0]


def by_weights(text: str) -> dict[str, str] | None:
    """Parse `base=...,vico=...` into a checkpoint for each kind of weights; None if the text has another form.

    Each kind appears once, is known, and has a value.
    """
    parts = [part.partition("=")[::2] for part in text.split(",")]
    named = dict(parts)
    is_one = len(named) == len(parts) and set(named) <= set(get_args(Weights)) and all(named.values())
    return named if is_one else None


def _named_checkpoints(given: str) -> Checkpoints:
    named = by_weights(given)
    if named is None or "base" not in named:
        raise ConfigError(
            f"--checkpoint is {given!r}; expected base=CHECKPOINT for the row that counts as 100%, then any others of "
            f"{', '.join(get_args(Weights))} in the same form, each at most once, separated by commas."
        )
    return Checkpoints.model_validate(named)


def select_cards(cards: Mapping[str, Card], names: Sequence[str]) -> list[Card]:
    """The named cards, in table order; all cards if `names` is empty.

    Raises:
        ConfigError: a name is unknown; the message lists the known ones.
    """
    for name in names:
        if name not in cards:
            raise unknown_name("row", name, cards)
    return [card for card in cards.values() if not names or card.name in names]
