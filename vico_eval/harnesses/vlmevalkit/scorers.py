"""Digests of the scorers of VLMEvalKit's data sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import vlmeval
from vlmeval.dataset import DATASET_CLASSES, supported_video_datasets

from vico_eval.harnesses.scoring_source import Toolkit, scorer_digest

_VLMEVALKIT = Toolkit.of(vlmeval, "dataset", "smp")


def scorer_of(data_set: str) -> dict[str, str]:
    """Return the digest of a data set's scoring code, under its name; empty if VLMEvalKit has no class for it."""
    of_videos: Callable[..., Any] | None = supported_video_datasets.get(data_set)
    of_pictures = (one for one in DATASET_CLASSES if data_set in one.supported_datasets())
    found = next(of_pictures, None) if of_videos is None else of_videos
    settings = dict(found.keywords) if isinstance(found, partial) else None
    return {} if found is None else {data_set: scorer_digest([found], _VLMEVALKIT, settings)}
