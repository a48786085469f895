"""A model that only sees and embeds does both as the whole one does, from every layout and family of decoders."""

import pytest
import torch
from torch import nn

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.without_decoder import load_without_decoder


@pytest.mark.parametrize("decoder", ["qwen2", "qwen2-tied", "qwen3", "qwen3_moe", "llama"])
@pytest.mark.parametrize("layout", ["released", "hf", "ours"])
def test_it_has_all_but_the_decoder_s_layers_and_head(layouts, tmp_path, decoder, layout):
    folder = tmp_path / "checkpoint"
    if layout == "hf":
        layouts.build_hf(folder, decoder)
    else:
        layouts.build_released(folder, decoder, flash=True)
    if layout == "ours":
        load_model(find_checkpoint(folder)).save_pretrained(tmp_path / "ours")
        folder = tmp_path / "ours"
    checkpoint = find_checkpoint(folder)
    whole = load_model(checkpoint, dtype="float32", device="cpu")
    seeing = load_without_decoder(checkpoint, dtype="float32", device="cpu")
    assert len(seeing.language_model.model.layers) == 0
    assert isinstance(seeing.language_model.lm_head, nn.Identity)
    assert seeing.facts == whole.facts
    assert seeing.facts.num_layers == len(whole.language_model.model.layers)
    ours, theirs = seeing.state_dict(), whole.state_dict()
    left_out = {name for name in theirs if name.startswith(("language_model.model.layers.", "language_model.lm_head."))}
    assert ours.keys() == theirs.keys() - left_out
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # The checkpoint itself is as before.
    assert checkpoint.config.text_config.num_hidden_layers == whole.facts.num_layers


def test_weights_that_are_missing_are_still_named(layouts, tmp_path):
    from safetensors.torch import load_file, save_file

    layouts.build_released(tmp_path, "qwen3", flash=True)
    (file,) = tmp_path.glob("*.safetensors")
    tensors = load_file(file)
    del tensors[next(name for name in tensors if name.startswith("vision_model."))]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing: vision_tower"):
        load_without_decoder(find_checkpoint(tmp_path), dtype="float32", device="cpu")
