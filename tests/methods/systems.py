"""Every registered method, variants and combinations of them, and how they are asked, for tests of properties."""

import numpy as np
from PIL import Image

from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request
from vico_eval.methods.interface import PixelPart
from vico_eval.methods.registry import load, method_names

# The random router's scores lie around 0.4: thresholds that let some tiles through and hold some back.
ROUTING = {"absolute_threshold": 0.4}
ARGUMENTS = {
    "fitprune": {"recipe": "llava"},
    "random": {"ratio": 0.5},
    "vico": ROUTING,
    "image_vir": ROUTING,
    "vanilla_vir": ROUTING,
}
SYSTEMS = {
    **{name: (name, ARGUMENTS.get(name, {})) for name in method_names()},
    "fastv at random": ("fastv", {"selection": "random"}),
    "fastv to target": ("fastv", {"layer": 1, "target_ratio": 0.55}),
    "sparsevlm rank": ("sparsevlm", {"variant": "rank"}),
    "sparsevlm plus": ("sparsevlm", {"variant": "plus", "plus_heads": 3}),
    "sparsevlm to target": ("sparsevlm", {"target_ratio": 0.55}),
    "sparsevlm rank to target": ("sparsevlm", {"variant": "rank", "target_ratio": 0.55}),
    "vico+fastv": ("vico+fastv", ROUTING),
    "vico+sparsevlm": ("vico+sparsevlm", ROUTING),
    "pool at random": ("pool", {"ratio": 0.5}),
    "single_tile+pool+fastv": ("single_tile+pool+fastv", {}),
    "downsample+random+sparsevlm": ("downsample+random+sparsevlm", {"ratio": 0.5}),
    "downsample+vanilla+lvtc": ("downsample+vanilla+lvtc", {}),
    "rvtc_edge+vico": ("rvtc_edge+vico", ROUTING),
    "rvtc_area+pvtc+fastv": ("rvtc_area+pvtc+fastv", {}),
    "rvtc_edge+pvtc+lvtc": ("rvtc_edge+pvtc+lvtc", {}),
    "top_attention of all rows": ("top_attention", {"score_source": "mean", "score_layer": -1}),
    "vico+random_tokens+fastv": ("vico+random_tokens+fastv", {**ROUTING, "random_tokens.keep_ratio": 0.6}),
    "single_tile+pool+top_attention": ("single_tile+pool+top_attention", {"keep_ratio": 0.3}),
    "top_attention+sparsevlm": ("top_attention+sparsevlm", {}),
    "divprune of each tile": ("divprune", {"group": "tile", "keep_ratio": 0.3}),
    "divprune to target": ("divprune", {"target_ratio": 0.55}),
    "visionzip of visual tokens": ("visionzip", {"merge_at": "decoder", "keep_ratio": 0.3}),
    "holov of squares": ("holov", {"num_chunks": 4, "chunks": "squares", "score_source": "mean"}),
    "cdpruner without the question": ("cdpruner", {"relevance": "none"}),
    "cdpruner of a soft kernel": ("cdpruner", {"kernel": "exp"}),
    "vispruner of all rows": ("vispruner", {"score_source": "mean", "important_ratio": 0.25}),
    "vico+divprune": ("vico+divprune", ROUTING),
    "vico+visionzip": ("vico+visionzip", ROUTING),
    "divprune+fastv": ("divprune+fastv", {}),
    "single_tile+visionzip+sparsevlm": ("single_tile+visionzip+sparsevlm", {}),
    "pyramiddrop to target": ("pyramiddrop", {"target_ratio": 0.55}),
    "pyramiddrop to nothing": ("pyramiddrop", {"layers": "1/3", "shares": "0.5/0"}),
    "vico+pyramiddrop": ("vico+pyramiddrop", ROUTING),
    "top_attention+pyramiddrop": ("top_attention+pyramiddrop", {}),
    "fitprune to target": ("fitprune", {"recipe": "llava_next", "target_ratio": 0.55}),
    "fitprune to almost nothing": ("fitprune", {"recipe": "llava", "target_ratio": 0.26}),
    "vico+fitprune": ("vico+fitprune", {**ROUTING, "recipe": "llava"}),
    "top_attention+fitprune": ("top_attention+fitprune", {"recipe": "llava", "reduction": 0.4}),
    "dart to target": ("dart", {"layer": 1, "target_ratio": 0.55}),
    "dart in its own order": ("dart", {"pivot_order": "norm", "image_pivots": 2, "text_pivots": 3}),
    "vico+dart": ("vico+dart", {**ROUTING, "layer": 3}),
    "top_attention+dart": ("top_attention+dart", {"dart.target_ratio": 0.7}),
}

ON_TILES = tuple(name for name in method_names() if not issubclass(load(name), PixelPart))
"""Methods that run where images are cut into tiles, as InternVL's are."""

GREEDY = GenerationSettings(max_new_tokens=4)


def picture(columns, rows, seed):
    """Of whole tiles."""
    pixels = np.random.default_rng(seed).integers(0, 255, (56 * rows, 56 * columns, 3), dtype=np.uint8)
    return ImageInput(Image.fromarray(pixels))


def request(key, *content, settings=GREEDY):
    """A question about a document of a number."""
    return Request(f"mixed/test/{key}", (Message("user", content),), generation=settings)
