"""Scores of single rows are those of the whole attention matrix that eager attention gives."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.internvl import InternVLVisionConfig, InternVLVisionModel

from vico_eval.families.encoder_attention import LayerInput

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def internvit(**settings):
    config = InternVLVisionConfig(**SIZES, image_size=(16, 16), patch_size=(4, 4), **settings)
    return InternVLVisionModel(config), lambda model, layer: model.encoder.layer[layer].attention


ENCODERS = {
    "InternViT-300M": lambda: internvit(attention_bias=True),
    "InternViT-6B": lambda: internvit(use_qk_norm=True, norm_type="rms_norm"),
    "CLIP": lambda: (
        CLIPVisionModel(CLIPVisionConfig(**SIZES, image_size=16, patch_size=4)),
        lambda model, layer: model.encoder.layers[layer].self_attn,
    ),
}


@pytest.fixture(params=ENCODERS)
def encoder(request):
    torch.manual_seed(0)
    model, attention_of = ENCODERS[request.param]()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), attention_of


@pytest.mark.parametrize("layer", [-2, 0])
@torch.inference_mode()
def test_rows_are_those_of_the_whole_matrix(encoder, layer):
    model, attention_of = encoder
    pixels = torch.randn(3, 3, 16, 16)
    found = {}
    for rows in ("cls", "mean"):
        watch = LayerInput(attention_of(model, layer), rows=rows, has_class_token=True)
        with watch.watching():
            plain = model(pixel_values=pixels).last_hidden_state
        found[rows] = watch.taken()
    model.set_attn_implementation("eager")
    weights = []
    hook = attention_of(model, layer).register_forward_hook(lambda _, __, output: weights.append(output[1]))
    torch.testing.assert_close(model(pixel_values=pixels).last_hidden_state, plain, atol=1e-4, rtol=1e-4)
    hook.remove()
    (matrix,) = weights  # [3, heads, 17, 17]
    torch.testing.assert_close(found["cls"].scores, matrix[:, :, 0, 1:].mean(dim=1))
    torch.testing.assert_close(found["mean"].scores, matrix[:, :, 1:, 1:].mean(dim=(1, 2)))
    assert found["cls"].keys.shape == (3, 16, 8)


@torch.inference_mode()
def test_several_calls_are_joined_and_no_hook_stays(encoder):
    model, attention_of = encoder
    watch = LayerInput(attention_of(model, 1), rows="cls", has_class_token=True)
    pixels = torch.randn(3, 3, 16, 16)
    with watch.watching():
        model(pixel_values=pixels[:2])
        model(pixel_values=pixels[2:])
    apart = watch.taken()
    with watch.watching():
        model(pixel_values=pixels)
    torch.testing.assert_close(apart.scores, watch.taken().scores)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
