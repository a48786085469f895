"""What methods say of the operations by which they choose tokens: those that PyTorch counts while they do."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import vico_eval
from vico_eval.bench.costs import model_costs
from vico_eval.bench.flops import flop_counter, score_flops
from vico_eval.bench.random_visual import KEY_WIDTH, QUESTION_TOKENS, random_visual_tokens
from vico_eval.engine.loading import find_engine
from vico_eval.engine.selection import select
from vico_eval.harnesses.run_record import run_record
from vico_eval.methods import registry
from vico_eval.methods.interface import ModelFacts, Widths
from vico_eval.report.costs.counts import count_costs
from vico_eval.runs.costs import ChoiceCosts
from vico_eval.runs.results import Document
from vico_eval.runs.schema import TokenAccount
from vico_eval.stages import METHOD, observed_by

WIDE, VISION = 64, 32
FACTS = ModelFacts(checkpoint="none", family="internvl", num_layers=4, num_heads=4)
IN_DECODER = {
    "fastv": {"layer": 1},
    "pyramiddrop": {"layers": "1/2"},
    "dart": {"layer": 1, "keep_ratio": 0.5},
    "fitprune": {"recipe": "llava"},
    "sparsevlm": {"layers": "0/1/2", "keep_shares": "0.5/0.3/0.2"},
}


@contextmanager
def products_of_methods():
    """Gives a list that holds, once it is left, the matrix products of each stay in the methods' own stage."""
    found = []

    @contextmanager
    def count(name):
        with flop_counter() as counter:
            yield
        if name == METHOD:
            found.append(counter.get_total_flops())

    with observed_by(count):
        yield found


def account(tiles, kept, **others):
    return TokenAccount(
        tiles=tiles,
        visual_tokens=kept,
        visual_tokens_uncompressed=256 * tiles,
        visual_tokens_before_selection=256 * tiles,
        visual_tokens_per_layer=(kept,) * 4,
        text_tokens=QUESTION_TOKENS,
        generated_tokens=1,
        **others,
    )


def counted(choices, accounts):
    found = find_engine({"pretrained": "vico-tiny-base", "device": "cpu"})
    record = run_record(found, title="Own", harness="lmms-eval", num_processes=1)
    costs = record.costs.model_copy(update={"choices": choices})
    documents = [Document(doc_id=0, fields={}, account=tuple(accounts))]
    return count_costs(record.model_copy(update={"costs": costs}), documents)["selection_operations"]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("divprune", {}),
        ("divprune", {"group": "tile"}),
        ("cdpruner", {}),
        ("cdpruner", {"relevance": "none"}),
        ("holov", {}),
        ("vispruner", {}),
        ("visionzip", {}),
        ("visionzip", {"merge_at": "decoder", "keep_ratio": 0.25}),
        ("top_attention", {}),
        ("random_tokens", {}),
    ],
)
@torch.inference_mode()
def test_a_selection_says_what_pytorch_counts(method, arguments):
    part = registry.build(method, arguments).selection
    visual = random_visual_tokens(768, part.needs, width=WIDE, vision_width=VISION)
    with products_of_methods() as products:
        (entering,) = select(part, [visual], [1])
    widths = Widths(
        model=WIDE,
        queries=1,
        keys=1,
        encoder_key=KEY_WIDTH,
        connector_input=4 * VISION,
        connector_operations=2 * (4 * VISION * WIDE + WIDE**2),
    )
    said = counted(part.choice_costs(FACTS, widths), [account(3, len(entering.tokens))])
    # VisionZip's coefficients of such small widths are rounded much.
    assert said == pytest.approx(sum(products), rel=0.01 if method == "visionzip" else 0)
    assert (said == 0) == (method in ("top_attention", "random_tokens"))


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 112, 3), dtype=np.uint8))


@pytest.mark.parametrize("method", IN_DECODER)
def test_a_method_in_the_decoder_says_what_pytorch_counts(method):
    arguments = {"method": method, "device": "cpu", **IN_DECODER[method]}
    model = vico_eval.load("vico-tiny-base", **arguments)
    with products_of_methods() as products:
        answer = model.ask("Which of these is it?", images=[picture()], max_new_tokens=2)
    said = counted(model_costs(find_engine({"pretrained": "vico-tiny-base", **arguments})).choices, [answer.account])
    assert len(set(answer.account.visual_tokens_per_layer)) > 1
    if method in ("fastv", "pyramiddrop", "dart"):
        assert said == sum(products) > 0
    else:  # of the text only some rates
        assert 0 < sum(products) < said < 4 * sum(products)


def test_the_encoders_scores_belong_to_the_selection_that_needs_them():
    found = find_engine({"pretrained": "vico-tiny-base", "device": "cpu", "method": "top_attention"})
    vision, patches = found.checkpoint.config.vision_config, found.checkpoint.config.vit_grid**2
    assert model_costs(found).choices == (ChoiceCosts(once=score_flops(vision, patches, 1)),)
    by_mean = {"pretrained": "vico-tiny-base", "device": "cpu", "method": "top_attention", "score_source": "mean"}
    (mean,) = model_costs(find_engine(by_mean)).choices
    assert mean.once == score_flops(vision, patches, patches)
    assert counted((mean,), [account(3, 384)]) == 3 * mean.once


def test_images_and_compressed_tiles_are_groups_of_their_own():
    # Two images of two tiles and one; the first tile has a quarter of its tokens.
    seen = account(3, 100, grids=((2, 1, 2), (1, 1, 1)), compressed=(0,), compressed_tiles=1)
    seen = seen.model_copy(update={"visual_tokens_before_selection": 576})
    assert counted((ChoiceCosts(pair=1),), [seen]) == 64**2 + 2 * 256**2
    assert counted((ChoiceCosts(pair=1, group="image"),), [seen]) == (64 + 256) ** 2 + 256**2
    assert counted((ChoiceCosts(text_pair=1, text=1),), [seen]) == QUESTION_TOKENS * (576 + 3)
    without = seen.model_copy(update={"tiles": 0, "visual_tokens": 0, "visual_tokens_before_selection": 0})
    assert counted((ChoiceCosts(pair=1, once=1, text=1),), [without]) == 0


def test_where_no_token_leaves_a_layer_nothing_is_counted():
    seen = account(3, 100).model_copy(update={"visual_tokens_per_layer": (100, 100, 40, 40)})
    every = ChoiceCosts(layer=2, once=1, token=10, pair=100, text=1000)
    tokens = 100 + QUESTION_TOKENS
    assert counted((every,), [seen]) == 1 + 10 * tokens + 100 * tokens**2 + 1000 * QUESTION_TOKENS
    assert counted((every.model_copy(update={"layer": 1}),), [seen]) == 0


def test_a_method_that_does_not_say_has_no_count_and_its_model_has():
    nothing_said = counted(None, [account(3, 100)])
    assert nothing_said != nothing_said
    drawn = {"method": "fastv", "layer": 1, "selection": "random"}
    for arguments in (*({"method": name} for name in ("vanilla", "pool", "downsample", "random_tokens")), drawn):
        assert model_costs(find_engine({"pretrained": "vico-tiny-base", "device": "cpu", **arguments})).choices == ()
