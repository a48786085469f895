"""Operations of what methods compute themselves, by hand and as a share of a prefill."""

import numpy as np
import pytest
import torch
from transformers.models.internvl import InternVLVisionConfig, InternVLVisionModel

from vico_eval.bench.flops import flop_counter, prefill_flops
from vico_eval.bench.measurements.prefill import SYSTEMS
from vico_eval.bench.method_operations import SOFTMAX, counted_operations, loop_operations, score_operations
from vico_eval.bench.random_models import decoder_config
from vico_eval.bench.random_visual import random_visual_tokens
from vico_eval.engine.selection import select
from vico_eval.families.encoder_attention import LayerInput
from vico_eval.methods import registry
from vico_eval.stages import METHOD, stage

TOKENS, TEXT = 3328, 40
WIDTHS = (64, 128, 192)
SELECTIONS = [title for title, (method, _) in SYSTEMS.items() if registry.build(method).selection is not None]


def test_only_the_methods_own_stage_is_counted_and_views_are_free():
    def work():
        left @ right
        with stage(METHOD):
            product = left @ right  # 2 * 4 * 8 * 3, and 4 * 8 numbers are read
            product.T[:2].sum()  # 2 rows of 4 are read
            product[torch.tensor([0])]  # 3 are written

    left, right = torch.ones(4, 8), torch.ones(8, 3)
    assert counted_operations(work) == 2 * 4 * 8 * 3 + 4 * 8 + 2 * 4 + 3


def test_loops_by_hand():
    # Two tiles, 512 tokens of one image: 512^2 distances twice, and 256 steps that look at 512 twice.
    assert loop_operations("divprune", 512, 256) == 2 * 512**2 + 2 * 256 * 512
    # 16 tokens of which 2 stay: the second step multiplies and adds one row of 16; both look ten times.
    assert loop_operations("cdpruner", 16, 2) == 2 * 16 + 2 * 10 * 16
    assert loop_operations("cdpruner", 512, 256) == 2 * loop_operations("cdpruner", 256, 128)
    assert loop_operations("holov", 512, 256) == 0


@pytest.mark.parametrize("rows", ["cls", "mean"])
@torch.inference_mode()
def test_products_of_the_encoders_scores_are_those_that_pytorch_counts(rows):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = InternVLVisionConfig(**sizes, image_size=(16, 16), patch_size=(4, 4), attention_bias=True)
    attention = InternVLVisionModel(config).eval().encoder.layer[0].attention
    inputs = torch.randn(1, 17, 32)

    def products():
        with flop_counter() as counter:
            attention(inputs)
        return counter.get_total_flops()

    plain = products()
    with LayerInput(attention, rows=rows, has_class_token=True).watching():
        added = products() - plain
    count = 1 if rows == "cls" else 16
    elementwise = (SOFTMAX + 2) * 4 * count * 17 + 16 * 32
    assert added == score_operations(config, 16, rows) - elementwise


@pytest.mark.parametrize("title", SELECTIONS)
@torch.inference_mode()
def test_a_selection_takes_less_than_a_thirtieth_of_the_prefill_of_an_8b_model(title):
    part = registry.build(*SYSTEMS[title]).selection
    kept = set()

    def operations(width):
        visual = random_visual_tokens(TOKENS, part.needs, width=width, vision_width=1024)
        return counted_operations(lambda: kept.add(len(select(part, [visual], [1])[0].tokens)))

    # Products grow with the width, those of a connector with its square: small widths tell what a large one takes.
    counts = [operations(width) for width in WIDTHS]
    config = decoder_config("8b")
    whole = np.polyval(np.polyfit(WIDTHS, counts, deg=2), config.hidden_size)
    whole += loop_operations(SYSTEMS[title][0], TOKENS, TOKENS // 2)
    prefill = prefill_flops(config, [TOKENS + TEXT] * config.num_hidden_layers).total
    assert kept == {TOKENS // 2}
    assert 0 < whole < 0.03 * prefill
