"""Table 4 on this machine: the bounds are the known ones, and every cell is measured."""

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vico_eval.bench.random_models import flash_config
from vico_eval.bench.table4 import bounds, measure_table4
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.config import VicoInternVLConfig

# 25, 50 and 75% of 2,560 visual tokens removed: of Qwen3-8B alone, and behind InternViT-300M on 10 tiles. Worked out
# without the encoder's patch embedding, which is 0.2% of it: hence the tolerance (2.664 for 2.67).
KNOWN = {64: ((1.34, 1.27), (2.00, 1.73), (3.88, 2.67)), 512: ((1.28, 1.23), (1.76, 1.59), (2.77, 2.23))}


@pytest.mark.parametrize("text_tokens", KNOWN)
def test_bounds_at_8b_are_the_known_ones(text_tokens):
    config = flash_config("8b")
    assert bounds(config, text_tokens, 0) == (1, 1)
    for compression, known in zip((25, 50, 75), KNOWN[text_tokens], strict=True):
        assert bounds(config, text_tokens, compression) == pytest.approx(known, abs=0.0065)


def test_a_decoder_alone_has_the_papers_tiles_before_it_and_no_bound_behind_an_encoder():
    config = flash_config("8b")
    alone = bounds(config.text_config, 64, 75)
    assert alone == (bounds(config, 64, 75).llm_only, None)
    # A model with other tiles has other bounds.
    config.vision_config.image_size = 224
    assert bounds(config, 64, 75).llm_only < 3.7


@pytest.mark.parametrize("model_type", ["qwen3_moe", "gpt2"])
def test_there_are_no_bounds_of_experts_and_of_decoders_without_a_formula(model_type):
    decoder = CONFIG_MAPPING[model_type]()
    assert bounds(decoder, 64, 75) == (None, None)
    assert bounds(VicoInternVLConfig(text_config=decoder), 64, 75) == (None, None)


def test_every_cell_is_measured_against_its_own_length_of_text():
    model = load_model(find_checkpoint("vico-tiny"), dtype="float32")
    lengths = []
    handle = model.language_model.register_forward_pre_hook(
        lambda _, __, arguments: lengths.append(arguments["inputs_embeds"].shape[1]), with_kwargs=True
    )
    table = measure_table4(model, rounds=2, minutes=1)
    handle.remove()
    # 10 tiles of 16 tokens, with 0, 25, 50 and 75% of the 160 removed; the second round runs backwards.
    once = [160 + 64, 120 + 64, 80 + 64, 40 + 64, 160 + 512, 120 + 512, 80 + 512, 40 + 512]
    assert lengths == once + once + once[::-1]
    assert [(cell["text_tokens"], cell["compression"], cell["visual_tokens"]) for cell in table["cells"]] == [
        (text, share, tokens) for text in (64, 512) for share, tokens in ((0, 160), (25, 120), (50, 80), (75, 40))
    ]
    first, last = table["cells"][4], table["cells"][7]
    for place, encoder in enumerate(table["encoder_s"]):
        whole, less = first["prefill_s"][place], last["prefill_s"][place]
        assert last["llm"]["measured"][place] == pytest.approx(whole / less)
        assert last["end_to_end"]["measured"][place] == pytest.approx((encoder + whole) / (encoder + less))
    assert first["llm"]["measured"] == [1, 1]
