"""Answer logits of a decoder whose tokens join on the way: as in inference, and with gradients everywhere."""

import pytest
import torch

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods import registry
from vico_eval.methods.lvtc import LVTCSettings
from vico_eval.training.small.architecture import build_config, build_model
from vico_eval.training.small.data.batches import Batch
from vico_eval.training.small.data.documents import DocumentMaker
from vico_eval.training.small.data.drawing import make_batch, step_rng
from vico_eval.training.small.decoding import answer_logits, encode
from vico_eval.training.small.internvl_x.lvtc import changing_logits, lvtc_logits

LVTC = vars(LVTCSettings(expand_before=2, first_insertion=1, insertion_interval=1, num_low_resolution=2))
SAME = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def model(micro_recipe, tokenizer) -> VicoInternVL:
    values = build_config(micro_recipe.model.model_copy(update={"text_layers": 3}), tokenizer).to_dict()
    model = build_model(VicoInternVLConfig(**(values | {"parts": {"lvtc": LVTC}})), seed=0).eval()
    for parameter in model.parameters():
        # Untrained weights of the usual size make tokens so alike that a wrong one hardly shows.
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    model.use_decoder_part(registry.build("lvtc").decoder)
    return model


@pytest.fixture(scope="module", params=[0, 3, 7])
def batch(request, model, tokenizer) -> Batch:
    """An image of several tiles; the frames of a video; two images. The rows of each differ in length."""
    rng = step_rng(0, "test", request.param)
    return make_batch(rng, DocumentMaker(tokenizer, model.config), num_tokens=900, max_questions=1)


def test_questions_that_share_a_picture_are_refused(model, tokenizer):
    batch = make_batch(step_rng(0, "test", 0), DocumentMaker(tokenizer, model.config), num_tokens=900, max_questions=4)
    with pytest.raises(RuntimeError, match="several questions per document"):
        lvtc_logits(model, batch, encode(model, batch))


def test_answers_have_the_logits_that_inference_gives_them(model, batch):
    with torch.inference_mode():
        vit_tokens = encode(model, batch)
        logits = lvtc_logits(model, batch, vit_tokens)
        counts = torch.full((len(vit_tokens),), model.num_high_tokens)
        expanded = batch.expand(counts)
        assert torch.equal(expanded.input_ids[expanded.is_answer], batch.answers)
        expected = []
        for row in range(batch.num_documents):
            own = vit_tokens.unflatten(0, (batch.num_documents, -1))[row]
            places = expanded.is_answer[row].nonzero()[:, 0].tolist()
            ids = expanded.input_ids[row, : places[-1] + 1]
            visual, own_counts = model.visual_tokens(own, torch.zeros(len(own), dtype=torch.bool))
            # Everything up to the first answer in one call, then token by token with the cache.
            cache = model.prompt_cache(ids[None, : places[0]], [""], own, own_counts)
            embeddings = model.embed(ids[None, : places[0]], visual)
            last = [model.language_model(inputs_embeds=embeddings, past_key_values=cache).logits[0, -1]]
            for place in range(places[0], places[-1]):
                last.append(
                    model.language_model(input_ids=ids[None, place : place + 1], past_key_values=cache).logits[0, -1]
                )
            expected += [last[place - places[0]] for place in places]
    torch.testing.assert_close(logits, torch.stack(expected), **SAME)


def test_rows_of_different_numbers_of_tiles_padded_on_either_side_are_the_single_ones(model):
    image, pad, generator = model.config.image_token_id, 0, torch.Generator().manual_seed(0)
    # An answer right behind an image: its last high-resolution token predicts it.
    rows = [[5, *[image] * 32, 7, 8, 9], [6, *[image] * 16, 11, *[image] * 16, 12], [7, 8, 9]]
    answers = [[-3, -1], [-1], [-1]]
    tiles = torch.randn(4, 3, 56, 56, generator=generator)
    vit_tokens = model.encode_tiles(tiles)
    alone = []
    for ids, places, own in zip(rows, answers, (vit_tokens[:2], vit_tokens[2:], vit_tokens[4:]), strict=True):
        is_answer = torch.zeros(1, len(ids), dtype=torch.bool)
        is_answer[0, places] = True
        alone.append(changing_logits(model, torch.tensor([ids]), is_answer, own))
    longest = max(map(len, rows))
    for side in ("left", "right"):
        input_ids = torch.full((3, longest), pad)
        is_answer = torch.zeros(3, longest, dtype=torch.bool)
        mask = torch.zeros(3, longest, dtype=torch.long)
        for row, (ids, places) in enumerate(zip(rows, answers, strict=True)):
            start = longest - len(ids) if side == "left" else 0
            input_ids[row, start : start + len(ids)] = torch.tensor(ids)
            mask[row, start : start + len(ids)] = 1
            is_answer[row, [start + len(ids) + place for place in places]] = True
        logits = changing_logits(model, input_ids, is_answer, vit_tokens, mask if side == "left" else None)
        torch.testing.assert_close(logits, torch.cat(alone), **SAME)


def test_gradients_flow_through_insertion_expansion_and_every_projection(model, tokenizer):
    model = build_like(model).double()
    batch = make_batch(step_rng(0, "test", 0), DocumentMaker(tokenizer, model.config), num_tokens=400, max_questions=1)

    def loss():
        logits = lvtc_logits(model, batch, encode(model, batch))
        return torch.nn.functional.cross_entropy(logits.double(), batch.answers)

    loss().backward()
    projectors = ("connector_high", "lvtc.low_resolution.0", "lvtc.high_resolution")
    checked = {name: parameter for name, parameter in model.named_parameters() if name.startswith(projectors)}
    assert len(checked) == 3 * 6
    for name, parameter in [*checked.items(), ("vision", model.vision_tower.embeddings.position_embeddings)]:
        gradient = parameter.grad.flatten()
        place = int(gradient.abs().argmax())
        assert gradient[place] != 0, name
        values = parameter.data.view(-1)
        step, before = 1e-3, float(values[place])
        ends = []
        for moved in (before + step, before - step):
            values[place] = moved
            with torch.inference_mode():
                ends.append(float(loss()))
        values[place] = before
        # Logits are rounded to float32, and so is their mean: 1e-7 / 1e-3.
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient[place]), rel=2e-2, abs=2e-4), name


def build_like(model):
    copied = VicoInternVL(model.config).eval()
    copied.load_state_dict(model.state_dict())
    copied.use_decoder_part(registry.build("lvtc").decoder)
    return copied


def test_nothing_joins_where_projections_start_at_zero_and_squares_are_as_large(model, tokenizer, batch):
    values = model.config.to_dict()
    values["parts"] = {"lvtc": values["parts"]["lvtc"] | {"high_block": 2}}
    same_grid = build_model(VicoInternVLConfig(**values), seed=1).eval()
    same_grid.lvtc.zero_outputs()
    visual = same_grid.visual_tokens(
        vit_tokens := encode(same_grid, batch), torch.zeros(len(vit_tokens), dtype=torch.bool)
    )
    plain = answer_logits(same_grid, batch, visual.tokens, visual.counts)
    same_grid.use_decoder_part(registry.build("lvtc").decoder)
    torch.testing.assert_close(lvtc_logits(same_grid, batch, vit_tokens), plain, **SAME)


def test_a_model_without_a_part_in_its_decoder_is_named(model):
    ids = torch.tensor([[5, 6]])
    with pytest.raises(RuntimeError, match=r"no part that changes tokens; call model\.use_decoder_part"):
        changing_logits(VicoInternVL(model.config), ids, ids > 5, torch.zeros(0, 1, 1))
