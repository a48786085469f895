"""Samples end to end in one row: the same losses and gradients as padded, from fewer positions."""

import copy

import numpy as np
import pytest
import torch

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import ImageInput, Message, Text
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.tiny.scenes import make_scene
from vico_eval.training.data.batches import collate, fixed_share, random_share
from vico_eval.training.data.prepare import Prepare, TrainingSample
from vico_eval.training.data.reading.conversations import Conversation
from vico_eval.training.data.stream import Skipped, bucketed
from vico_eval.training.models.packed_attention import attend_by_sample
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy


@pytest.fixture(scope="module")
def samples(micro_model, tokenizer):
    """Of one tile, several and none, and answers of different lengths."""
    preprocessor = Preprocessor(tokenizer, InternVLPrompting(InternVLSettings.of(micro_model.config)))
    prepare = Prepare(preprocessor, max_length=5000, tokens_per_tile=micro_model.num_high_tokens)
    rng = np.random.default_rng(5)
    pictures = [ImageInput(make_scene("read", rng, size).images[0]) for size in ((1, 1), (2, 2), (3, 1))]
    contents = [(picture, Text("What?")) for picture in pictures]
    contents.insert(1, (Text("And now, in many words, or in a few?"),))
    return [
        prepare(
            Conversation(
                key=str(n), messages=(Message("user", content), Message("assistant", (Text("x" * (1 + 5 * n)),)))
            ),
            epoch=0,
        )
        for n, content in enumerate(contents)
    ]


@pytest.fixture
def pair(micro_model):
    policy = copy.deepcopy(micro_model)
    torch.manual_seed(1)
    for parameter in (*policy.connector_high.parameters(), *policy.language_model.parameters()):
        parameter.data += 0.05 * torch.randn_like(parameter)
    policy.requires_grad_(True)
    return PolicyAndReference(policy, frozen_copy(micro_model, train_vision=True), chunk=4)


def computed(pair, samples, blank, *, is_packed):
    """Losses [routings, samples] and agreement, and the gradient of each part."""
    batch = collate(samples, blank, is_packed=is_packed)
    pair.policy.zero_grad()
    result = pair(batch, [fixed_share(batch, share, ("test",)) for share in (0.0, 0.5, 1.0)])
    result.kl.sum().backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in pair.policy.named_parameters() if parameter.grad is not None
    }
    return result.kl.detach(), result.agreement, gradients


@pytest.mark.parametrize("attention", ["sdpa", "eager", "by sample"])
def test_losses_and_gradients_are_those_of_padded_samples(pair, samples, attention):
    pair.policy.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    for model in (pair.policy, pair.reference):
        if attention != "by sample":
            model.set_attn_implementation(attention)
    chosen = [samples[0], Skipped("odd", "media", "cut off"), *samples[1:]]
    padded, agreement, gradients = computed(pair, chosen, samples[1], is_packed=False)
    if attention == "by sample":
        for model in (pair.policy, pair.reference):
            attend_by_sample(model)
    packed, packed_agreement, packed_gradients = computed(pair, chosen, samples[1], is_packed=True)
    assert float(padded.min()) > 1e-4
    # The sums of attention are taken over other lengths, which moves the last bits of float32; a sample that saw its
    # neighbour, or kept counting positions behind it, would move the loss by 1e-3 and more.
    torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(packed_agreement, agreement, atol=0, rtol=0)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_a_packed_sample_does_not_see_what_stands_before_it(pair, samples):
    pair.eval()
    with torch.no_grad():
        first, second = (
            pair(batch, [torch.ones(len(batch.tiles), dtype=torch.bool)]).kl[0, -1]
            for batch in (
                collate([before, samples[2]], samples[1], is_packed=True) for before in (samples[0], samples[3])
            )
        )
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)


def test_what_packing_saves():
    """Of positions the policy computes in a pass of stage 1, with 8 samples of 1 to 13 tiles a micro-batch.

    Samples of one length lie together, but which share of their tiles is low is drawn for each sample alone.
    """
    rng = np.random.default_rng(0)
    shapes = zip(rng.integers(1, 14, 1024).tolist(), rng.integers(50, 400, 1024).tolist(), strict=True)
    samples = [
        TrainingSample(
            key=str(number),
            tiles=np.zeros((tiles, 0, 0, 3), dtype=np.uint8),
            tile_image=np.zeros(tiles, dtype=np.int64),
            tile_medium=np.zeros(tiles, dtype=np.int64),
            text_ids=[0] * words,
            image_positions=[0],
            is_answer=np.arange(words) > words // 2,
            image_token_id=1,
        )
        for number, (tiles, words) in enumerate(shapes)
    ]
    lengths = [len(one.text_ids) + 256 * len(one.tiles) for one in samples]
    positions = {"high": [0, 0], "drawn": [0, 0]}
    for row in bucketed(lengths, 8, rng).tolist():
        for place, is_packed in enumerate((False, True)):
            batch = collate([samples[index] for index in row], samples[0], is_packed=is_packed)
            low = random_share(batch, ("test",))
            for name, counts in (
                ("high", torch.full_like(low, 256, dtype=torch.long)),
                ("drawn", 256 - 192 * low.long()),
            ):
                positions[name][place] += batch.lay_out(counts).input_ids.numel()
    of_high, of_drawn = (padded / packed for padded, packed in positions.values())
    # models/training/README.md says 1.4 of the policy and nothing of the reference, whose tiles are all high.
    assert of_drawn == pytest.approx(1.42, abs=0.03)
    assert of_high == pytest.approx(1.0, abs=0.01)


def test_packed_samples_take_no_position_for_padding(samples):
    batches = [collate(samples, samples[1], is_packed=is_packed) for is_packed in (False, True)]
    counts = torch.full((len(batches[0].tiles),), 4)
    padded, packed = (batch.lay_out(counts) for batch in batches)
    lengths = [len(one.expand([4] * len(one.tiles)).input_ids) for one in samples]
    assert padded.input_ids.shape == (4, max(lengths))
    assert packed.input_ids.shape == (1, sum(lengths))
    assert packed.lengths == lengths
    assert padded.lengths is None
    answers = [layout.input_ids[layout.row, layout.column + 1].tolist() for layout in (padded, packed)]
    assert answers[0] == answers[1]
    assert packed.sample.tolist() == padded.sample.tolist() == sorted(padded.sample.tolist())
    assert set(packed.sample.tolist()) == {0, 1, 2, 3}
