"""A model without its decoder's layers, for decoding by another program: it computes visual tokens and embeddings.

The layers' weights are not loaded. At 8B, 2.5 of 17 GB remain.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import nn
from transformers.conversion_mapping import register_checkpoint_conversion_mapping

from vico_eval.families.internvl.checkpoint import Checkpoint, load_model
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.weight_names import conversions


class SeeingInternVL(VicoInternVL):
    """InternVL without decoder layers, which its checkpoints still contain."""

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *(VicoInternVL._keys_to_ignore_on_load_unexpected or ()),
        r"^language_model\.model\.layers\.",
    ]


# transformers looks up a class's weight names by the name of the class.
register_checkpoint_conversion_mapping(SeeingInternVL.__name__, conversions(), overwrite=True)


def load_without_decoder(checkpoint: Checkpoint, **placement: Any) -> VicoInternVL:
    """Load a model without the decoder's layers and head; see `load_model`.

    Its configuration and facts still include the layers.
    """
    config = deepcopy(checkpoint.config)
    text = config.text_config
    of_layers = {name: getattr(text, name) for name in ("num_hidden_layers", "layer_types") if hasattr(text, name)}
    for name in of_layers:
        setattr(text, name, [] if name == "layer_types" else 0)
    model = load_model(replace(checkpoint, config=config), model_class=SeeingInternVL, **placement)
    for one in (model.config.text_config, model.language_model.config):
        for name, value in of_layers.items():
            setattr(one, name, value)
    model.language_model.lm_head = nn.Identity()
    return model
