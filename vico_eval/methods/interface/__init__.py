"""The interface of methods: four places where a method can act, with one class of part for each.

A method is at most one part in each place, joined by `+`. A part holds its hyper-parameters (a frozen dataclass, its
`Config`) and no state of any request, so that answers can't depend on the rest of the batch. Parts receive data only:
neither the interface nor a method refers to a family of models.
"""

from vico_eval.methods.interface.before_decoder import (
    HIGH,
    LOW,
    ConnectorPart,
    ImageSize,
    RequestTiles,
    ResolutionPart,
    Route,
    ScoreSource,
    Selected,
    SelectionPart,
    TileLimits,
    VisualTokens,
    need_low_connector,
    need_router,
)
from vico_eval.methods.interface.decoder import (
    DecoderPart,
    LayerState,
    NextTokens,
    RequestPrompt,
)
from vico_eval.methods.interface.facts import (
    CONNECTOR,
    CONNECTOR_INPUTS,
    DECODER,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    NEEDS,
    P_COMPRESS,
    PLACES,
    QUESTION,
    RESOLUTION,
    SELECTION,
    ModelFacts,
    Part,
    TileFacts,
    Widths,
    task_of,
)

__all__ = [
    "CONNECTOR",
    "CONNECTOR_INPUTS",
    "DECODER",
    "ENCODER_ATTENTION",
    "ENCODER_KEYS",
    "HIGH",
    "LOW",
    "NEEDS",
    "PLACES",
    "P_COMPRESS",
    "QUESTION",
    "RESOLUTION",
    "SELECTION",
    "ConnectorPart",
    "DecoderPart",
    "ImageSize",
    "LayerState",
    "ModelFacts",
    "NextTokens",
    "Part",
    "RequestPrompt",
    "RequestTiles",
    "ResolutionPart",
    "Route",
    "ScoreSource",
    "Selected",
    "SelectionPart",
    "TileFacts",
    "TileLimits",
    "VisualTokens",
    "Widths",
    "need_low_connector",
    "need_router",
    "task_of",
]
