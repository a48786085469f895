"""The small recipe's stage 2, for the router that decides tile by tile and for the one that decides image by image."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vico_eval.internvl.config import VicoInternVLConfig
from vico_eval.internvl.modeling import VicoInternVL
from vico_eval.training.data import Batch, batches, make_batch, step_rng
from vico_eval.training.loop import LOG_EVERY, ParameterGroup, fit, say, write_log
from vico_eval.training.processes import gather, own_parts
from vico_eval.training.recipe import RouterRecipe, StageName
from vico_eval.training.router import (
    Decision,
    auc,
    collect_decisions,
    decision_scores,
    keep_labels,
    packed,
    ratio_summary,
    router_loss,
)
from vico_eval.training.stages import Run

HELD_OUT_SHARE = 0.1


def train_router(run: Run, stage: Literal["router", "image_router"]) -> None:
    """Collect loss ratios, label them, train one router on nine tenths and log its AUC on the rest.

    Each part of a step's batch has its own decisions and window, so that the number of processes changes nothing.
    """
    whole_image = stage == "image_router"
    before: StageName = "router" if whole_image else "consistency"
    settings = run.recipe.image_router if whole_image else run.recipe.router
    reference, model = run.model("base").train(False), run.model(before).train(False)
    router = model.image_router if whole_image else model.router
    assert router is not None
    own = own_parts(settings.num_parts)
    shards = {part: _collect(run, stage, reference, model, settings, part) for part in own}
    labels = {part: keep_labels(shard, settings.percentile, settings.window) for part, shard in shards.items()}
    num_shard = settings.num_pairs // settings.num_parts
    num_train = num_shard - max(1, int(HELD_OUT_SHARE * num_shard))
    batch_size = max(1, settings.batch_size // settings.num_parts)

    def parts(start: int) -> Iterator[list[tuple[int, tuple[int, np.ndarray]]]]:
        for step in range(start, settings.steps):
            rngs = [(part, step_rng(run.recipe.seed, f"{stage}/order/{part}", step)) for part in own]
            yield [(part, (part, rng.choice(num_train, batch_size, replace=False))) for part, rng in rngs]

    def loss(step: int, chosen: tuple[int, np.ndarray]) -> dict[str, Tensor]:
        part, indices = chosen
        vit_tokens, decision = packed([shards[part][i] for i in indices])
        return router_loss(router, vit_tokens, decision, labels[part][indices])

    groups = [ParameterGroup("router", router)]
    fit(stage, settings, groups, parts, loss, seed=run.recipe.seed, folder=run.out, resume=run.resume)

    scores, compress = [], []
    with torch.no_grad():
        for part, shard in shards.items():
            vit_tokens, decision = packed(shard[num_train:])
            scores.append(decision_scores(router, vit_tokens, decision, num_shard - num_train))
            compress.append(labels[part][num_train:] == 0)
    ratios = [decision.ratio for shard in shards.values() for decision in shard]
    gathered = gather((scores, compress, ratios))
    quality = auc(
        torch.cat([score for of_process in gathered for score in of_process[0]]),
        torch.cat([label for of_process in gathered for label in of_process[1]]),
    )
    every = [ratio for of_process in gathered for ratio in of_process[2]]
    write_log(run.out, {"stage": stage, "ratios": len(every), **ratio_summary(every), "auc": round(quality, 4)})
    run.save(model, stage)


def _collect(
    run: Run, stage: str, reference: VicoInternVL, model: VicoInternVL, settings: RouterRecipe, part: int
) -> list[Decision]:
    """One part's share of the decisions to learn from."""
    wanted = settings.num_pairs // settings.num_parts
    make = partial(_batch, run.recipe.seed, f"{stage}/{part}", run.tokenizer, run.config, settings)
    decisions: list[Decision] = []
    for step, batch in enumerate(batches(make, 0, wanted)):
        torch.manual_seed(zlib.crc32(f"{run.recipe.seed}/{stage}/{part}/{step}".encode()))
        decisions += collect_decisions(reference, model, batch, settings.epsilon, whole_image=stage == "image_router")
        if step % LOG_EVERY == 0:
            say(f"{stage}: {len(decisions)}/{wanted} ratios")
        if len(decisions) >= wanted:
            break
    return decisions[:wanted]


def _batch(
    seed: int,
    stream: str,
    tokenizer: PreTrainedTokenizerBase,
    config: VicoInternVLConfig,
    settings: RouterRecipe,
    step: int,
) -> Batch:
    rng = step_rng(seed, stream, step)
    return make_batch(rng, tokenizer, config, num_tokens=settings.num_tokens, max_questions=settings.max_questions)
