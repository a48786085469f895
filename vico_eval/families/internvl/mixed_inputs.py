"""Visual tokens of mixtures: a connector's outputs for weighted sums of its inputs.

Shapes: tiles = those of one request; n = visual tokens of the request; D = decoder width; C = vision width; groups,
members, mixed = as in `VisualTokens.connect_mixed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vico_eval.families.internvl.connectors import HighConnector, LowConnector, pixel_shuffle
from vico_eval.methods.interface import HIGH, LOW, Route

if TYPE_CHECKING:
    from vico_eval.families.internvl.modeling import VicoInternVL


class MixedInputs:
    """The connector's outputs for mixtures of a request's inputs."""

    def __init__(self, model: VicoInternVL, vit_tokens: Tensor, choice: Tensor, routes: Sequence[Route]) -> None:
        """
        Args:
            model: a model with plain connectors, not PVTC.
            vit_tokens: [tiles, 1 + h*w, C].
            choice: [tiles], int64, the index of each tile's route in `routes`.
            routes: empty for the high connector alone; routes must have no computation after their connector.
        """
        self._model = model
        self._vit_tokens = vit_tokens
        self._is_low = torch.tensor(
            [bool(routes) and routes[number].connector == LOW.connector for number in choice.tolist()]
        )
        counts = torch.where(self._is_low, model.num_low_tokens, model.num_high_tokens)
        self._tile = torch.arange(len(counts)).repeat_interleave(counts)
        self._first = counts.cumsum(dim=0) - counts

    def __call__(self, members: Tensor, weights: Tensor) -> Tensor:
        """Return [groups, mixed, D] for tokens [groups, members], on the CPU, and their weights [groups, mixed,
        members].

        Raises:
            RuntimeError: a group has tokens of several tiles, whose connectors may have different input widths.
        """
        members = members.cpu()
        tiles = self._tile[members]
        if not bool((tiles == tiles[:, :1]).all()):
            raise RuntimeError("a part mixed connector inputs of several tiles; expected groups within a tile")
        tile = tiles[:, 0]
        places = members - self._first[tile, None]
        made = weights.new_empty(*weights.shape[:2], self._model.config.text_config.hidden_size)
        for name in (HIGH.connector, LOW.connector):
            here = (self._is_low[tile] == (name == LOW.connector)).nonzero()[:, 0]
            if len(here):
                connector = self._connector(name)
                vit_tokens = _beside(connector, self._vit_tokens[tile[here]])
                inputs = pixel_shuffle(vit_tokens, connector.block, connector.version)  # [groups, n of a tile, width]
                taken = places[here].to(inputs.device)[..., None]
                rows = inputs.gather(1, taken.expand(-1, -1, inputs.shape[2]))
                here = here.to(weights.device)
                mixed = weights[here].to(inputs.device) @ rows.float()
                made[here] = connector.project(mixed.to(inputs)).to(made)
        return made

    def _connector(self, name: str) -> HighConnector | LowConnector:
        connector = self._model.connector_low if name == LOW.connector else self._model.connector_high
        assert isinstance(connector, (HighConnector, LowConnector)), "checked by what the family offers"
        return connector


def _beside(connector: HighConnector | LowConnector, vit_tokens: Tensor) -> Tensor:
    """Return `vit_tokens` on the device of the connector's weights; offloaded weights move to their inputs."""
    device = connector.norm.weight.device
    return vit_tokens if device.type == "meta" else vit_tokens.to(device)
