"""What lmms-eval learns of this package at start-up: names and where the classes are. Imports neither torch nor
transformers."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

from vico_eval.methods.registry import method_names

MODELS = "vico_eval.harnesses.lmms_eval.models"
COMBINED = "compressed_internvl"
INTERNVL_X = "internvl_x"


def manifests() -> list[ModelManifest]:
    """One model `<method>_internvl` for every method; `compressed_internvl`, which takes `method=`; and `internvl_x`,
    which takes `variant=`."""
    named = [ModelManifest(f"{name}_internvl", chat_class_path=f"{MODELS}.{name}") for name in method_names()]
    return [
        *named,
        ModelManifest(COMBINED, chat_class_path=f"{MODELS}.CompressedInternVL"),
        ModelManifest(INTERNVL_X, chat_class_path=f"{MODELS}.InternVLX"),
    ]
