"""The break-even point of a method: the number of visual tokens from which its prefill is faster than the plain one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vico_eval.bench.prefill_runs import Bench, Plain, run_of
from vico_eval.bench.random_visual import TILE_TOKENS
from vico_eval.bench.records import beside_neighbours, in_turns
from vico_eval.methods.registry import Method

BELOW_A_TILE = (16, 64, 144)
ROUNDS = 5


def break_even(bench: Bench, methods: Mapping[str, Method], numbers: Sequence[int]) -> dict[str, int | None]:
    """Measure the break-even point of each method among some numbers of visual tokens, as in `first_that_pay`."""

    def lower_quartiles(num_visual: int, titles: Sequence[str]) -> dict[str, float]:
        plain = Plain(bench, num_visual)
        runs = {title: run_of(bench, num_visual, methods[title]) for title in titles}
        for run in (plain, *runs.values()):
            run.seconds()  # warm-up
        plain_s, seconds = in_turns(plain.seconds, {title: run.seconds for title, run in runs.items()}, ROUNDS)
        return {
            title: beside_neighbours(plain_s, seconds[title], place)["speedup_quartiles"][0]
            for place, title in enumerate(titles)
        }

    return first_that_pay(list(methods), numbers, lower_quartiles)


def first_that_pay(
    titles: Sequence[str], numbers: Sequence[int], lower_quartiles: Callable[[int, Sequence[str]], Mapping[str, float]]
) -> dict[str, int | None]:
    """Return the first number at which three of four rounds are faster than plain, by title; None if there is none.

    Args:
        titles: the methods' titles.
        numbers: numbers of visual tokens, ascending.
        lower_quartiles: measures some of the methods at a number and returns the lower quartiles of their speed-ups.
    """
    first: dict[str, int | None] = dict.fromkeys(titles)
    for number in numbers:
        left = [title for title in titles if first[title] is None]
        if not left:
            break
        found = lower_quartiles(number, left)
        first |= {title: number for title in left if found[title] > 1}
    return first


def sizes(below: int) -> list[int]:
    """Return the numbers of visual tokens to try: parts of a tile, then 1, 2, 4, ... whole tiles."""
    doubling = [TILE_TOKENS << exponent for exponent in range((below // TILE_TOKENS).bit_length())]
    return [size for size in (*BELOW_A_TILE, *doubling) if size < below]
