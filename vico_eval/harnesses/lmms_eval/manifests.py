"""The names of our models and the locations of their classes, which lmms-eval reads at start-up. Imports neither torch
nor transformers."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

from vico_eval.harnesses.lmms_eval.kinds import KINDS

MODELS = "vico_eval.harnesses.lmms_eval.models"
INTERNVL_X = "internvl_x"


def manifests() -> list[ModelManifest]:
    """Return the names of all models and the locations of their classes.

    Each kind of checkpoint has a model `<method>_<kind>` for every method that it supports, and `compressed_<kind>`,
    which takes `method=`. `internvl_x` takes `variant=`.
    """
    names = [name for kind in KINDS for name in (*map(kind.model_of, kind.methods), kind.combined)]
    return [
        *(ModelManifest(name, chat_class_path=f"{MODELS}.{name}") for name in names),
        ModelManifest(INTERNVL_X, chat_class_path=f"{MODELS}.InternVLX"),
    ]
