"""Methods in the decoder under a device map: accelerate hooks every layer and moves what it needs.

Two devices need a GPU; weights that wait on disk go through the same hooks on the CPU alone.
"""

import pytest
import torch

from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.mixed_inputs import MixedInputs
from vico_eval.methods import registry

PARTS = ("vision_tower", "connector_high", "language_model.model.embed_tokens", "language_model.lm_head")
DEVICE_MAP = {
    **dict.fromkeys((*PARTS, "language_model.model.norm", "language_model.model.rotary_emb"), "cpu"),
    **{f"language_model.model.layers.{layer}": ("cpu", "disk")[layer % 2] for layer in range(4)},
}


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_a_connector_that_waits_elsewhere_takes_in_mixtures(place, untrained):
    checkpoint = find_checkpoint(str(untrained / "base"))
    spread = load_model(checkpoint, device_map=DEVICE_MAP | {"connector_high": place}, dtype="float32")
    whole = load_model(checkpoint, device="cpu", dtype="float32")
    torch.manual_seed(0)
    tiles, weights = torch.randn(2, 3, 56, 56), torch.rand(2, 3, 16)
    made = []
    for model in (spread, whole):
        with torch.inference_mode():
            mix = MixedInputs(model, model.encode_tiles(tiles), torch.zeros(2, dtype=torch.long), ())
            made.append(mix(torch.arange(32).view(2, 16), weights))
    torch.testing.assert_close(*made)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("fastv", {"layer": 2}),  # ranks by the attention of a layer whose weights lie on disk
        ("sparsevlm", {}),
        ("sparsevlm", {"variant": "plus", "plus_heads": 3}),
        ("pyramiddrop", {"layers": "1/2/3"}),  # ranks by layers on disk and by one in memory, before they have run
        ("dart", {}),  # looks at keys of a layer on disk, and through the final norm
        ("fitprune", {"recipe": "llava"}),
    ],
)
def test_a_device_map_changes_no_answer(method, arguments, untrained):
    checkpoint = find_checkpoint(str(untrained / "base"))
    spread = load_model(checkpoint, device_map=DEVICE_MAP, dtype="float32")
    assert spread.language_model.model.layers[1].self_attn.q_proj.weight.is_meta
    whole = load_model(checkpoint, device="cpu", dtype="float32")
    image = whole.config.image_token_id
    input_ids = torch.tensor([[65, *[image] * 16, 66, *[image] * 16, 67, 68]])
    tiles = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    logits, tokens = [], []
    for model in (spread, whole):
        model.use_decoder_part(registry.build(method, arguments).decoder)
        with torch.inference_mode():
            logits.append(model(input_ids, tiles).logits)
            visual = model.visual_tokens(model.encode_tiles(tiles), torch.zeros(2, dtype=torch.bool)).tokens
            cache = model.prompt_cache(input_ids, ["key"])
            generation = {"past_key_values": cache, "max_new_tokens": 4, "pad_token_id": 0}
            tokens.append(model.generate(input_ids, visual, torch.ones_like(input_ids), **generation))
        assert cache.visual_tokens_per_layer(0)[-1] < 32
    torch.testing.assert_close(*logits)
    assert torch.equal(*tokens)
