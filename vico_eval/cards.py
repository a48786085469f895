"""Model cards: one YAML file a system (a row of a table), and the checkpoints of each size or table."""

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
"""Entry of checkpoints.yaml that holds the built-in small checkpoints of a family."""


class Card(Closed):
    """One system: how its row is called and how lmms-eval runs it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    """The row's name in a table."""

    titles: dict[KindName, str] = Field(default_factory=dict)
    """The same by kind of checkpoint, where it is another one than on InternVL."""

    family: Family = "vico"
    """Whose tables it is a row of; a suite names the family of its rows."""

    order: int
    """Rows of a table ascend by it. The first one counts as 100%."""

    description: str
    lmms_model: str
    """What follows lmms-eval's `--model`."""

    weights: Weights
    """Which checkpoint of a size becomes `pretrained`."""

    flash_from: Weights | None = None
    """Which checkpoint lends its low connector and router, where `weights` has none."""

    ratio_from: str | None = None
    """System whose run of the same table tells this one how many tokens to save, unless budgets are given."""

    share_argument: ShareArgument = "target_ratio"
    """How the method is told a budget, where it takes one."""

    seeds: tuple[int, ...] = ()
    """One run a seed; empty for systems without chance."""

    model_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Arguments of the method, as lmms-eval's `--model_args` takes them."""


class Checkpoints(Closed):
    """The checkpoints of one size or table: hub ids, folders or names of built-in ones."""

    base: str
    vico: str | None = None
    pvtc: str | None = None
    lvtc: str | None = None
    full: str | None = None
    trained_by: str | None = None
    """The command that makes the built-in ones."""

    kind: KindName = "internvl"
    """What they are."""

    model_args: dict[str, dict[str, str | int | float | bool]] = Field(default_factory=dict)
    """By system: arguments that it takes with these checkpoints, besides those of its card."""

    def of(self, weights: Weights) -> str:
        """The checkpoint that a card's `weights` or `flash_from` means.

        Raises:
            ConfigError: there is none.
        """
        checkpoint: str | None = getattr(self, weights)
        if checkpoint is None:
            raise ConfigError(
                f"checkpoints.yaml names no `{weights}` checkpoint beside {self.base}; a row of this table needs one."
            )
        return checkpoint


def load_cards(models: Path, family: str = "vico") -> dict[str, Card]:
    """The cards of a family under `models/systems` by name, in the order of a table's rows.

    Raises:
        ConfigError: an unknown family; a file that is no card, or a row that another one draws on and that isn't
            there; names the file.
    """
    if family not in get_args(Family):
        raise unknown_name("family", family, get_args(Family))
    cards: dict[str, Card] = {}
    for path in sorted((models / "systems").glob("*.yaml")):
        card = read_yaml(TypeAdapter(Card), path)
        if card.name != path.stem:
            raise ConfigError(f"{path} describes system `{card.name}`; expected the name of the file, `{path.stem}`.")
        if card.family == family:
            cards[card.name] = card
    for card in cards.values():
        if card.ratio_from is not None and card.ratio_from not in cards:
            raise unknown_name("system", card.ratio_from, cards, where=f"ratio_from of {card.name}.yaml")
        if card.ratio_from is not None and cards[card.ratio_from].seeds:
            raise ConfigError(
                f"ratio_from of {card.name}.yaml is {card.ratio_from}, which has several runs, one a seed."
            )
    return dict(sorted(cards.items(), key=lambda item: item[1].order))


def load_checkpoints(models: Path) -> dict[str, Checkpoints]:
    """The checkpoints by size or table, from `models/checkpoints.yaml`.

    Raises:
        ConfigError: the file is missing or has a key that is no field of `Checkpoints`.
    """
    return read_yaml(TypeAdapter(dict[str, Checkpoints]), models / "checkpoints.yaml")


def find_checkpoints(given: str | None, suite: Suite, *, is_small: bool = False) -> Checkpoints:
    """The checkpoints that `--checkpoint` means for a suite.

    Args:
        given: a size of checkpoints.yaml or its end (`8B`), a folder or hub id for all rows, or `base=...,vico=...`;
            None for the suite's own.
        suite: whose rows are run.
        is_small: whether the built-in ones are taken where a suite has no own.

    Raises:
        ConfigError: none was given and there is no default, or it is none of these.
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
    # InternVL3-8B is the name of a model, and its end is not.
    sizes = [size for size in known if given == size or (size[0].isdigit() and given in _ends(size))]
    if len(sizes) == 1:
        return known[sizes[0]]
    if given.strip() and ("/" in given or is_folder(Path(given)) or is_folder(models_dir() / given)):
        return Checkpoints.model_validate(dict.fromkeys(get_args(Weights), given))
    raise unknown_name("checkpoint", given, known, where="--checkpoint (a folder or hub id has a slash)")


def _ends(size: str) -> tuple[str, str]:
    """What a size may be called: 30B-A3B and 30B for 3.5-30B-A3B."""
    end = size.partition("-")[2]
    return end, end.partition("-")[0]


def by_weights(text: str) -> dict[str, str] | None:
    """What a text such as `base=...,vico=...` says of each kind of weights; None unless it is one.

    No kind stands in it twice or with nothing, and there is none that no card has.
    """
    parts = [part.partition("=")[::2] for part in text.split(",")]
    named = dict(parts)
    is_one = len(named) == len(parts) and set(named) <= set(get_args(Weights)) and all(named.values())
    return named if is_one else None


def _named_checkpoints(given: str) -> Checkpoints:
    named = by_weights(given)
    if named is None or "base" not in named:
        raise ConfigError(
            f"--checkpoint is {given!r}; expected base=CHECKPOINT, whose row counts as 100%, and others of "
            f"{', '.join(get_args(Weights))} in the same way, each once, separated by commas."
        )
    return Checkpoints.model_validate(named)


def select_cards(cards: Mapping[str, Card], names: Sequence[str]) -> list[Card]:
    """The named cards, in table order; all of them where `names` is empty.

    Raises:
        ConfigError: an unknown name; the message lists the known ones.
    """
    for name in names:
        if name not in cards:
            raise unknown_name("row", name, cards)
    return [card for card in cards.values() if not names or card.name in names]
