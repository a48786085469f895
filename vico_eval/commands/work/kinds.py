"""The rows that a table's kind of checkpoint supports, and their lmms-eval models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from vico_eval.cards import Card, Checkpoints, load_checkpoints
from vico_eval.errors import ConfigError
from vico_eval.harnesses.lmms_eval.kinds import INTERNVL, KINDS, Kind, kind_of_checkpoint, split_model
from vico_eval.methods.registry import describe, is_installed, method_names, parameters
from vico_eval.paths import models_dir


def kind_of_checkpoints(checkpoints: Checkpoints) -> Kind:
    """Return the kind of a table's checkpoints, from the one that its first row loads.

    Checkpoints in models/checkpoints.yaml are known. For others, `config.json` is read, which is downloaded for a hub
    id. If it isn't available, InternVL is assumed: the commands can still be shown, and a model that loads a checkpoint
    of another kind rejects it.
    """
    for known in load_checkpoints(models_dir()).values():
        if known.base == checkpoints.base:
            return next(kind for kind in KINDS if kind.name == known.kind)
    return kind_of_checkpoint(checkpoints.base) or INTERNVL


def with_methods(cards: Mapping[str, Card], names: Sequence[str]) -> dict[str, Card]:
    """Add a card for each named method that has none, such as a method of another package.

    Its row is named after the method, comes last, and uses the base weights. A method that takes `target_ratio` and
    `ratio_from` gets ViCO's share of tokens, or the budgets, like the methods that have cards.

    Args:
        cards: the cards of the suite's family.
        names: rows that the user named.

    Raises:
        ConfigError: a method is only registered in this process, and rows are run by others.
    """
    found = dict(cards)
    known = method_names()
    for name in names:
        if name not in cards and name in known:
            if not is_installed(name):
                raise ConfigError(
                    f"method {name!r} is registered in this process only, and lmms-eval runs rows in processes of its "
                    "own. Name it as an entry point of a package (docs/add-a-method.md), or call vico_eval.compare."
                )
            found[name] = Card(
                name=name,
                title=name,
                order=1 + max(card.order for card in found.values()),
                description=describe(name).partition("\n")[0],
                lmms_model=INTERNVL.model_of(name),
                weights="base",
                ratio_from="vico" if {"target_ratio", "ratio_from"} <= set(parameters(name)) else None,
            )
    return found


def cards_of_kind(
    cards: Mapping[str, Card],
    kind: Kind,
    *,
    asked: Sequence[str],
    by_suite: Sequence[str],
    has_budgets: bool,
    console: Console,
) -> tuple[dict[str, Card], Sequence[str]]:
    """Return the cards of rows that a kind of checkpoint supports, adapted to it, and the names of those to run.

    No names mean all of them.

    Args:
        cards: the cards of the suite's family.
        kind: the checkpoints' kind.
        asked: rows that the user named, if any.
        by_suite: rows that the suite names, if any.
        has_budgets: whether token budgets are given.
        console: the console for messages about skipped rows.

    Raises:
        ConfigError: a requested row isn't supported, or takes its share from such a row.
    """
    able = {
        name: card.model_copy(update={"lmms_model": model, "title": card.titles.get(kind.name, card.title)})
        for name, card in cards.items()
        if (model := _model(card, kind)) is not None
    }
    if unable := [name for name in asked if name not in able]:
        raise ConfigError(
            f"{', '.join(unable)} can't be run on {kind.title} checkpoints, which lack what the method needs. Rows "
            f"that can: {', '.join(able)}."
        )
    rows = asked or [name for name in by_suite if name in able]
    if left_out := [name for name in by_suite if name not in able and not asked]:
        console.print(
            f"Left out: {', '.join(left_out)}, which can't be run on {kind.title} checkpoints.",
            highlight=False,
            soft_wrap=True,
        )
    wanting = {name: able[name].ratio_from for name in rows or able if able[name].ratio_from not in (None, *able)}
    if wanting and not has_budgets:
        name, source = next(iter(wanting.items()))
        raise ConfigError(
            f"row {name} saves as many tokens as row {source}, which does not run on {kind.title} checkpoints. Say how "
            "many with --budgets, for example --budgets 0.5,0.25."
        )
    return able, rows


def _model(card: Card, kind: Kind) -> str | None:
    """Return the lmms-eval model that runs a card's row on a kind of checkpoint; None if there is none."""
    named = split_model(card.lmms_model)
    if named is None:
        return card.lmms_model if kind is INTERNVL else None
    return kind.model_of(named[0]) if named[0] in kind.methods else None
