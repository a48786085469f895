"""Cost coefficients in a run's record, which give the operations and cache size of its requests."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from vico_eval.schemas import Closed


class ChoiceCosts(Closed):
    """Operations in matrix products that a method performs in one place to select or merge tokens.

    For a group of n tokens that are compared with each other, in a prompt with t text tokens:
    `once + token * n + pair * n^2 + text * t + text_pair * n * t`. Before the decoder, n counts the connector's visual
    tokens. Between layers, it counts all tokens of the request in the previous layer, text included.

    Token accounts don't record which text tokens a method uses. All are counted, so the result is an upper bound.
    """

    layer: PositiveInt | None = None
    """Decoder layer before which the method selects; None for a selection before the decoder."""

    group: Literal["tile", "image"] = "tile"
    """Group of visual tokens that are compared with each other before the decoder."""

    once: NonNegativeInt = 0
    token: NonNegativeInt = 0
    pair: NonNegativeInt = 0
    text: NonNegativeInt = 0
    text_pair: NonNegativeInt = 0


class ModelCosts(Closed):
    """Coefficients for a request's operations and cache size, used by the formulas in `vico_eval.bench.flops`.

    A multiplication and an addition count as two operations.
    """

    encoder: NonNegativeInt
    """Operations of the vision encoder per tile."""

    router: NonNegativeInt
    """Operations to score a tile, including the vision encoder if the router comes from another checkpoint."""

    high: NonNegativeInt
    """Operations of the connector per tile at full length."""

    low: NonNegativeInt
    """Operations of the connector per compressed tile."""

    token: NonNegativeInt
    """Operations of a decoder layer's weight matrices per token."""

    pair: NonNegativeInt
    """Operations of a layer's causal attention, per squared token count."""

    head: NonNegativeInt
    """Operations to compute the last token's logits."""

    cached: NonNegativeInt
    """Numbers in a layer's cache per token."""

    choices: tuple[ChoiceCosts, ...] | None = None
    """The method's own operations to select tokens; empty if there are none. None if the method doesn't declare them,
    and in records from older versions."""
