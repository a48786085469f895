"""Model cards: one YAML file a system (a row of a table), and the checkpoints of each size or table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vico_eval.errors import ConfigError
from vico_eval.methods.registry import did_you_mean

TableName = Literal["tiny", "internvl-x"]
TABLES: tuple[TableName, ...] = get_args(TableName)
"""Tables whose rows the cards are; `vico-eval demo` fills them on the built-in benchmark."""

Weights = Literal["base", "vico", "pvtc", "lvtc", "full"]
Schema = TypeVar("Schema")


class _Closed(BaseModel):
    """An unknown key in a file is an error, not a setting that silently does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Card(_Closed):
    """One system: how its row is called and how lmms-eval runs it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    """The row's name in a table."""

    table: TableName = "tiny"
    """The table that it is a row of."""

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
    """System whose run of the same table tells this one how many tokens to save."""

    seeds: tuple[int, ...] = ()
    """One run a seed; empty for systems without chance."""

    model_args: dict[str, str | int | float | bool] = {}
    """Arguments of the method, as lmms-eval's `--model_args` takes them."""


class Checkpoints(_Closed):
    """The checkpoints of one size or table: hub ids, folders or names of built-in ones."""

    base: str
    vico: str | None = None
    pvtc: str | None = None
    lvtc: str | None = None
    full: str | None = None
    trained_by: str | None = None
    """The command that makes the built-in ones."""

    model_args: dict[str, dict[str, str | int | float | bool]] = {}
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


def load_cards(models: Path, table: str = "tiny") -> dict[str, Card]:
    """The cards of a table under `models/systems` by name, in the order of its rows.

    Raises:
        ConfigError: an unknown table; a file that is no card, or that another row draws on and is none; names the file.
    """
    if table not in TABLES:
        raise unknown("table", table, TABLES)
    cards: dict[str, Card] = {}
    for path in sorted((models / "systems").glob("*.yaml")):
        card = _validated(TypeAdapter(Card), path)
        if card.name != path.stem:
            raise ConfigError(f"{path} describes system `{card.name}`; expected the name of the file, `{path.stem}`.")
        if card.table == table:
            cards[card.name] = card
    for card in cards.values():
        if card.ratio_from is not None and card.ratio_from not in cards:
            raise unknown("system", card.ratio_from, cards, where=f"ratio_from of {card.name}.yaml")
    return dict(sorted(cards.items(), key=lambda item: item[1].order))


def load_checkpoints(models: Path) -> dict[str, Checkpoints]:
    """The checkpoints by size or table, from `models/checkpoints.yaml`.

    Raises:
        ConfigError: the file is missing or has a key that is no field of `Checkpoints`.
    """
    return _validated(TypeAdapter(dict[str, Checkpoints]), models / "checkpoints.yaml")


def select_cards(cards: Mapping[str, Card], names: Sequence[str]) -> list[Card]:
    """The named cards, in table order; all of them where `names` is empty.

    Raises:
        ConfigError: an unknown name; the message lists the known ones.
    """
    for name in names:
        if name not in cards:
            raise unknown("row", name, cards)
    return [card for card in cards.values() if not names or card.name in names]


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> ConfigError:
    """The error for a name that isn't there: lists those that are and suggests the nearest."""
    known = list(known)
    place = f" in {where}" if where else ""
    return ConfigError(f"unknown {kind} {name!r}{place}{did_you_mean(name, known)}; known are {', '.join(known)}.")


def _validated(schema: TypeAdapter[Schema], path: Path) -> Schema:
    try:
        return schema.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"Can't read {path}: {error.strerror}. Is the installation complete?") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        )
        raise ConfigError(f"{path} does not fit: {problems}.") from error
