"""What a record says of costs: coefficients from which the operations and the cache of its requests follow."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from vico_eval.schemas import Closed


class ChoiceCosts(Closed):
    """What a method computes in one place to choose tokens or to merge them, in matrix products.

    Of a group of n tokens that are compared with each other, in a prompt with t tokens of text:
    `once + token * n + pair * n^2 + text * t + text_pair * n * t`. Before the decoder n are visual tokens that the
    connector made; between its layers all of a request's tokens, text included, in the layer before.

    Which tokens of text a method asks doesn't stand in token accounts: counted are all, so a method's own operations
    are at most these.
    """

    layer: PositiveInt | None = None
    """The decoder layer before which it chooses; None before the decoder."""

    group: Literal["tile", "image"] = "tile"
    """Which visual tokens are compared before the decoder."""

    once: NonNegativeInt = 0
    token: NonNegativeInt = 0
    pair: NonNegativeInt = 0
    text: NonNegativeInt = 0
    text_pair: NonNegativeInt = 0


class ModelCosts(Closed):
    """What the operations and the cache of a request follow from, by the formulas of `vico_eval.bench.flops`.

    A multiplication and an addition are two operations.
    """

    encoder: NonNegativeInt
    """Of the vision encoder, on a tile."""

    router: NonNegativeInt
    """Of a tile's score; where another checkpoint decides, of its vision encoder too."""

    high: NonNegativeInt
    """Of the connector, on a tile at full length."""

    low: NonNegativeInt
    """On a compressed one."""

    token: NonNegativeInt
    """Of a decoder layer's matrices, on a token."""

    pair: NonNegativeInt
    """Of a layer's causal attention: times the square of its tokens."""

    head: NonNegativeInt
    """Of the logits of the last token."""

    cached: NonNegativeInt
    """Numbers that a layer's cache holds of a token."""

    choices: tuple[ChoiceCosts, ...] | None = None
    """What the method computes to choose tokens; empty where it computes nothing. None where it doesn't say, and in
    records of older versions."""
