"""The small recipe's last stage: choosing thresholds, validating them, and saving the finished checkpoint.

The 60th percentile of stage 2 does not give 60% compressed tiles at a threshold of 0.5, because it is about labels and
not about the router's predictions. The absolute thresholds are therefore chosen for a share of compressed tiles. The
relative rule is switched off: it never compresses a single tile, and makes the decision about a tile depend on the
tiles beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.loop.finite import NotFinite
from vico_eval.training.small.data.batches import Batch
from vico_eval.training.small.decoding import encode
from vico_eval.training.small.evaluate import (
    Routing,
    all_high,
    all_low,
    evaluate,
    image_routing,
    image_scores,
    random_routing,
    tile_routing,
    tile_scores,
    validation_batches,
)
from vico_eval.training.small.export import rounded, save_vico
from vico_eval.training.small.vico_tiny.stages import BASE, RecipeRun

POLICY = "image_router/model"
"""The model trained by ViCO's stages, with both routers; relative to a run's `out`."""


@torch.inference_mode()
def absolute_threshold(
    model: VicoInternVL,
    batches: list[tuple[str, Batch]],
    scores: Callable[[VicoInternVL, Batch, Tensor], Tensor],
    compressed_tile_ratio: float,
) -> float:
    """Return the threshold, rounded to four digits, that compresses a share of `compressed_tile_ratio` of all tiles.

    Args:
        scores: returns p_compress of each tile of a batch, [tiles].

    Raises:
        NotFinite: a score is not finite.
    """
    every = torch.cat([scores(model, batch, encode(model, batch)) for _, batch in batches])
    if odd := int((~every.isfinite()).sum()):
        raise NotFinite(f"{odd} of the router's {len(every)} scores are not finite; train it again.")
    return round(float(torch.quantile(every.float(), 1 - compressed_tile_ratio)), 4)


def calibrate(run: RecipeRun) -> None:
    """Choose thresholds, save the finished checkpoint, and log the accuracy under every routing.

    Raises:
        CheckpointError: ViCO's stages have not run.
    """
    if not run.training.accelerator.is_main_process:
        return
    settings, seed, watch = run.recipe.calibration, run.recipe.seed, run.training.watch
    base, model = _load(run, BASE), _load(run, POLICY)
    documents = validation_batches(run.tokenizer, model, seed, settings.num_documents)
    wanted = settings.compressed_tile_ratio
    router = model.config.parts["router"]
    # A small image is often a single tile, which the relative rule never compresses.
    router["relative_threshold"] = None
    router["absolute_threshold"] = absolute_threshold(model, documents, tile_scores, wanted)
    router["image_threshold"] = absolute_threshold(model, documents, image_scores, wanted)
    save_vico(model, run.tokenizer, run.out / "vico-tiny")
    by_tile = tile_routing(model, router["absolute_threshold"])
    reached = evaluate(model, documents, by_tile).compressed_tile_ratio
    rows: list[tuple[str, VicoInternVL, Routing]] = [
        ("vanilla", base, all_high),
        ("vico, nothing compressed", model, all_high),
        ("vico", model, by_tile),
        ("image-level", model, image_routing(model, router["image_threshold"])),
        ("random", model, random_routing(reached, seed)),
        ("all compress", model, all_low),
    ]
    for title, weights, routing in rows:
        accuracy = evaluate(weights, documents, routing)
        by_task = {task: round(percent, 1) for task, percent in accuracy.by_task.items()}
        compressed = round(accuracy.compressed_tile_ratio, 4)
        entry = {"validation": title, "average": round(accuracy.average, 2), "compressed_tile_ratio": compressed}
        watch.write({**entry, **by_task})
        watch.say(f"{title}: {accuracy.average:.1f}% correct, {100 * compressed:.1f}% of tiles compressed  {by_task}")


def _load(run: RecipeRun, name: str) -> VicoInternVL:
    folder = run.out / name
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is missing. Before `calibration`, run the stages dense, base and corpus of this recipe, then "
            "`vico-eval train consistency` and, for tiles and for images, `vico-eval train router`; "
            "models/vico-tiny has their configurations."
        )
    return rounded(load_model(find_checkpoint(str(folder)), dtype="float32"))
