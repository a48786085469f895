"""The cost of the vision encoder's scores: the work that `LayerInput` adds to one layer, including pooling."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers.models.internvl import InternVLVisionModel

from vico_eval.bench.method_operations import score_operations
from vico_eval.bench.random_models import flash_config
from vico_eval.bench.random_visual import TILE_TOKENS
from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.families.encoder_attention import CLS, MEAN, LayerInput
from vico_eval.families.internvl.token_places import of_squares


class ScoredLayer:
    """One random layer of the vision encoder for a decoder of the given size, with the vision tokens of some tiles."""

    def __init__(self, size: str, num_tiles: int, *, device: str, dtype: str) -> None:
        torch.manual_seed(0)
        config = flash_config(size)
        self.config = config.vision_config
        self.config.num_hidden_layers = 1
        self.num_tiles, self.num_patches = num_tiles, config.vit_grid**2
        with torch.device(device):
            tower = InternVLVisionModel._from_config(self.config, dtype=getattr(torch, dtype)).eval()
        if device == "cpu":
            prepare_for_cpu(tower)
        self.attention = tower.encoder.layer[0].attention
        self.inputs = torch.randn(num_tiles, 1 + self.num_patches, self.config.hidden_size).to(
            tower.device, tower.dtype
        )

    @torch.inference_mode()
    def seconds(self, rows: str) -> float:
        """Return the seconds from the end of the layer's own attention until every visual token has scores and keys."""
        layer = LayerInput(self.attention, rows=rows, has_class_token=True)
        counts = torch.full((self.num_tiles,), TILE_TOKENS)
        start = 0.0

        def begin(*_: object) -> None:
            nonlocal start
            self._wait()
            start = time.perf_counter()

        # Hooks run in the order of their registration, so this one runs before that of `layer`.
        clock = self.attention.register_forward_hook(begin)
        with layer.watching():
            self.attention(self.inputs)
        clock.remove()
        for values in layer.taken():
            of_squares(values, counts, swapped=True)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.inputs.is_cuda:
            torch.cuda.synchronize()


def measure_scores(size: str, num_tiles: int, rounds: int, *, device: str, dtype: str) -> dict[str, dict[str, Any]]:
    """Return the operations (TFLOP) and seconds, [rounds], of both kinds of scores for `num_tiles` tiles."""
    layer = ScoredLayer(size, num_tiles, device=device, dtype=dtype)
    for rows in (CLS, MEAN):
        layer.seconds(rows)
    return {
        rows: {
            "tflop": num_tiles * score_operations(layer.config, layer.num_patches, rows) / 1e12,
            "seconds": [layer.seconds(rows) for _ in range(rounds)],
        }
        for rows in (CLS, MEAN)
    }
