"""FitPrune's recipes, released and searched: how many visual tokens leave in each layer.

Source:  FitPrune (arXiv 2409.10197, AAAI 2025); the tables are the released code's, for LLaVA-1.5-7B and LLaVA-NeXT-7B.
Differs: for another number of tokens, counts are scaled as the released code does for LLaVA-NeXT. For a target or
         another depth, a recipe's curve is used: the share of the visual tokens that enters each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean

from pydantic import Field, ValidationError

from vico_eval.errors import ConfigError
from vico_eval.schemas import Closed

Curve = tuple[float, ...]
"""[layers]: share of the visual tokens that enters each layer; the first is 1."""


@dataclass(frozen=True)
class Recipe:
    """Number of tokens that leave in each layer."""

    leave: tuple[int, ...]
    """[layers]."""

    num_visual: int
    """Visual tokens at the input for which these numbers hold."""

    @property
    def curve(self) -> Curve:
        """Share of the visual tokens that enters each layer."""
        return tuple(1 - left / self.num_visual for left in accumulate((0, *self.leave[:-1])))

    def counts(self, num_visual: int) -> tuple[int, ...]:
        """Number of `num_visual` tokens that enter each layer; each number that leaves is scaled and rounded down."""
        leave = (int(tokens * num_visual / self.num_visual) for tokens in self.leave[:-1])
        return tuple(accumulate(leave, lambda current, tokens: max(0, current - tokens), initial=num_visual))


Recipes = Mapping[float, Recipe]
"""By reduction: the share of the operations on visual tokens that a recipe saves."""


class SearchedRecipe(Closed):
    """The recipe of one budget in a file."""

    reduction: float = Field(ge=0, le=1)
    leave: tuple[int, ...] = Field(min_length=2)
    """[num_layers]."""


class RecipeFile(Closed):
    """The file that a search writes and `recipe=FILE.json` reads."""

    checkpoint: str
    """Checkpoint that it was searched for, as the user named it."""

    sha256: str
    """Digest of that checkpoint's files."""

    num_layers: int = Field(ge=2)
    num_visual: int = Field(ge=1)
    """Visual tokens for which the numbers hold: those of a sample, the mean if samples differ."""

    num_samples: int = Field(ge=1)

    recipes: tuple[SearchedRecipe, ...] = Field(min_length=1)

    @property
    def by_reduction(self) -> Recipes:
        """The recipes to choose from."""
        return {recipe.reduction: Recipe(recipe.leave, self.num_visual) for recipe in self.recipes}


def read_recipes(path: Path) -> RecipeFile:
    """The recipes in a file.

    Raises:
        ConfigError: the file can't be read or has another form, or its recipes contradict its sizes.
    """
    try:
        file = RecipeFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"recipe={path} can't be read: {error}. Expected a file of `vico-eval fit-recipe`."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"recipe={path} has no recipes ({place}: {first['msg']}). Expected a file of `vico-eval fit-recipe`."
        ) from error
    for recipe in file.recipes:
        left = sum(recipe.leave)
        if len(recipe.leave) != file.num_layers or min(recipe.leave) < 0 or left > file.num_visual or recipe.leave[-1]:
            raise ConfigError(
                f"recipe={path} has {list(recipe.leave)} for reduction {recipe.reduction}; expected a number of at "
                f"least 0 for each of {file.num_layers} layers, 0 for the last one, and at most {file.num_visual} in "
                "total."
            )
    return file


def at_depth(curve: Curve, num_layers: int) -> Curve:
    """A curve stretched to another number of layers: the same share enters at the same relative depth."""
    if len(curve) == num_layers:
        return curve
    stretched = []
    for layer in range(num_layers):
        place = layer * len(curve) / num_layers
        before = int(place)
        after = min(before + 1, len(curve) - 1)
        stretched.append(curve[before] + (curve[after] - curve[before]) * (place - before))
    return tuple(stretched)


@cache
def mixture(target: float, recipes: tuple[Recipe, ...], num_layers: int) -> Curve:
    """The curve whose mean is the target: a mixture of two recipes, whose mean is linear in its weight.

    Above the first recipe, it is mixed with keeping everything. Below the last one, that curve is multiplied by a
    factor after the first layer.

    Args:
        target: from 1 / num_layers to 1.
        recipes: in any order, at least one.
        num_layers: layers of the curve.
    """
    curves = [at_depth(recipe.curve, num_layers) for recipe in recipes]
    falling = sorted([(1.0,) * num_layers, *curves], key=fmean, reverse=True)
    for above, below in pairwise(falling):
        most, least = fmean(above), fmean(below)
        if most >= target >= least and most > least:
            weight = (target - least) / (most - least)
            return tuple(weight * one + (1 - weight) * other for one, other in zip(above, below, strict=True))
    last = falling[-1]
    behind = sum(last[1:])
    factor = (target * num_layers - 1) / behind if behind else 0.0
    return (1.0, *(factor * share for share in last[1:]))


def rounded(curve: Curve, num_visual: int) -> tuple[int, ...]:
    """Number of `num_visual` tokens that enter each layer: the curve's share, rounded, so that no error adds up."""
    return tuple(round(num_visual * share) for share in curve)


def _table(num_visual: int, text: str) -> dict[float, Recipe]:
    rows = [list(map(int, line.split())) for line in text.strip().splitlines()]
    return {reduction / 100: Recipe(tuple(leave), num_visual) for reduction, *leave in rows}


RELEASED: Mapping[str, Recipes] = {
    "llava": _table(
        576,
        """
        10 0 0 1 2 1 0 1 4 5 5 11 4 2 2 0 0 1 1 2 4 2 10 1 1 1 2 1 1 0 1 0 0
        20 0 0 3 3 1 1 4 16 14 15 24 4 2 3 2 0 6 0 5 13 4 19 2 1 1 1 1 1 2 1 0 0
        30 0 0 7 6 4 5 16 40 24 21 24 4 2 3 4 0 16 0 11 26 6 32 3 1 0 1 2 2 4 0 0 0
        40 0 1 21 13 14 11 41 53 29 15 14 5 1 4 5 1 26 1 13 28 6 27 2 1 0 0 1 1 2 0 0 0
        50 3 7 49 24 29 17 59 41 26 8 10 6 2 5 7 2 30 3 13 27 5 23 2 1 0 0 1 1 2 0 0 0
        55 6 17 69 31 34 19 59 30 23 6 8 7 2 5 8 2 29 4 12 25 4 19 2 1 0 0 1 0 1 0 0 0
        60 14 33 89 36 36 20 55 21 18 4 7 5 2 5 7 4 26 5 11 24 4 18 2 1 0 0 1 0 1 0 0 0
        70 48 79 118 41 33 17 36 9 9 2 3 2 1 3 4 8 18 7 8 20 4 13 2 1 0 0 1 0 1 0 0 0
        80 128 127 118 35 26 8 13 3 2 1 0 0 0 2 1 8 7 8 5 11 2 6 1 1 0 0 0 1 0 0 0 0
        90 262 153 80 19 13 1 2 0 0 0 0 0 0 0 0 1 1 2 1 2 0 1 0 0 0 0 0 1 0 0 0 0
        """,
    ),
    "llava_next": _table(
        2880,
        """
        40 7 73 162 124 119 148 131 151 105 26 30 17 5 19 44 10 73 60 67 61 32 39 0 3 1 5 0 0 0 0 0 0
        60 98 313 279 218 201 221 167 132 63 12 11 5 1 8 26 13 83 57 56 58 24 42 0 2 1 5 0 0 0 0 0 0
        """,
    ),
}
"""By the model that they were searched for. Each line holds a reduction in percent and the number of tokens that leave
in each layer."""
