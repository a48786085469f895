"""What lmms-eval learns of this package at start-up: names and where the classes are. Imports neither torch nor
transformers."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

from vico_eval.harnesses.lmms_eval.kinds import KINDS

MODELS = "vico_eval.harnesses.lmms_eval.models"
INTERNVL_X = "internvl_x"


def manifests() -> list[ModelManifest]:
    """The names of all models, and where their classes are.

    For each kind of checkpoint there is one model `<method>_<kind>` for every method that runs on it, and
    `compressed_<kind>`, which takes `method=`; `internvl_x` takes `variant=`.
    """
    names = [name for kind in KINDS for name in (*map(kind.model_of, kind.methods), kind.combined)]
    return [
        *(ModelManifest(name, chat_class_path=f"{MODELS}.{name}") for name in names),
        ModelManifest(INTERNVL_X, chat_class_path=f"{MODELS}.InternVLX"),
    ]
