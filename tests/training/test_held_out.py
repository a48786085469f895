"""Held-out samples: none twice, and no number where there is none."""

import json
import math
from types import SimpleNamespace

import torch

from vico_eval.training.config import ConsistencyConfig
from vico_eval.training.data.batches import collate
from vico_eval.training.data.samples import _blank
from vico_eval.training.data.stream import Skipped
from vico_eval.training.held_out import HeldOut
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy
from vico_eval.training.stages import train_consistency


def test_a_corpus_with_fewer_samples_is_measured_once(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings | {"warmup": None, "held_out_samples": 256})
    train_consistency(config)
    report = json.loads((config.out / "held_out.json").read_text())["consistency"]
    assert {line["samples"] for line in report} == {6}  # a fifth of 28


def test_where_every_sample_was_skipped_there_is_no_loss(micro_model):
    blank = _blank(micro_model.config, micro_model.config.tile_size)
    batch = collate([Skipped("gone", "media", "cut off")], blank)
    alone = SimpleNamespace(device=torch.device("cpu"), reduce=lambda values, reduction: values)
    pair = PolicyAndReference(micro_model, frozen_copy(micro_model, train_vision=False)).eval()
    assert math.isnan(HeldOut(alone, lambda: iter([batch])).kl(pair))
