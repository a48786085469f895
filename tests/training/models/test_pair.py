"""Policy beside reference: what is computed is what a plain forward pass of each gives."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import ImageInput, Message, Text
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.families.internvl.tiling import normalise
from vico_eval.tiny.scenes import make_scene
from vico_eval.training.config import LoraSettings
from vico_eval.training.data.batches import collate, fixed_share, random_share
from vico_eval.training.data.prepare import Prepare
from vico_eval.training.data.reading.conversations import Conversation
from vico_eval.training.data.stream import Skipped
from vico_eval.training.models.opening import add_adapters, halve_reference
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy, has_same_vision


@pytest.fixture(scope="module")
def prepare(micro_model, tokenizer):
    preprocessor = Preprocessor(tokenizer, InternVLPrompting(InternVLSettings.of(micro_model.config)))
    return Prepare(preprocessor, max_length=5000, tokens_per_tile=micro_model.num_high_tokens)


def sample(prepare, name, *content):
    messages = (Message("user", content), Message("assistant", (Text(f"Says {name}!"),)))
    return prepare(Conversation(key=name, messages=messages), epoch=0)


@pytest.fixture(scope="module")
def samples(prepare):
    rng = np.random.default_rng(5)
    pictures = [make_scene(task, rng, (2, 2)).images[0] for task in ("read", "count", "colour")]
    return [
        sample(prepare, "one", ImageInput(pictures[0]), Text("What?")),
        sample(prepare, "words alone", Text("And now?")),
        sample(prepare, "two pictures", ImageInput(pictures[1]), Text("and"), ImageInput(pictures[2]), Text("?")),
    ]


@pytest.fixture
def policy(micro_model):
    policy = copy.deepcopy(micro_model)
    torch.manual_seed(1)
    for parameter in (*policy.connector_high.parameters(), *policy.language_model.parameters()):
        parameter.data += 0.05 * torch.randn_like(parameter)
    return policy


def alone(model, one, compressed):
    """Log-probabilities [answers, V] by the model's own forward pass, without a neighbour or padding."""
    counts = torch.where(compressed, model.num_low_tokens, model.num_high_tokens)
    expanded = one.expand(counts.tolist())
    pixels = normalise(torch.from_numpy(one.tiles)) if len(one.tiles) else None
    logits = model(torch.tensor([expanded.input_ids]), pixels, compressed).logits[0]
    return logits[:-1][torch.as_tensor(expanded.is_answer)[1:]].log_softmax(-1)


def test_losses_are_those_of_samples_alone(policy, micro_model, samples):
    batch = collate(samples, samples[1])
    compressed = fixed_share(batch, 0.5, ("test",))
    assert 0 < int(compressed.sum()) < len(compressed)
    pair = PolicyAndReference(policy, frozen_copy(micro_model, train_vision=True), chunk=4).eval()
    with torch.no_grad():
        found = pair(batch, [compressed, torch.zeros_like(compressed)])
        for routing, kl, agreement in zip(
            (compressed, torch.zeros_like(compressed)), found.kl, found.agreement, strict=True
        ):
            for one, own, value, share in zip(
                samples, routing.split(batch.num_tiles().tolist()), kl, agreement, strict=True
            ):
                reference = alone(micro_model, one, torch.zeros_like(own))
                answer = alone(policy, one, own)
                naive = (reference.exp() * (reference - answer)).sum(-1).mean()
                torch.testing.assert_close(value, naive, atol=2e-5, rtol=1e-4)
                assert share == pytest.approx(float((reference.argmax(-1) == answer.argmax(-1)).float().mean()))
    assert float(found.kl.min()) > 1e-3


def test_the_policy_is_its_own_reference_before_it_is_trained(micro_model, samples):
    batch = collate(samples, samples[1])
    high = torch.zeros(len(batch.tile_sample), dtype=torch.bool)
    pair = PolicyAndReference(micro_model, frozen_copy(micro_model, train_vision=False)).eval()
    with torch.no_grad():
        found = pair(batch, [high, ~high])
    assert float(found.kl[0].abs().max()) < 1e-6
    assert float(found.kl[1][[0, 2]].min()) > 1e-4


def test_a_frozen_vision_encoder_is_shared_and_a_trained_one_is_not(policy):
    shared, own = frozen_copy(policy, train_vision=False), frozen_copy(policy, train_vision=True)
    assert shared.vision_tower is policy.vision_tower
    assert own.vision_tower is not policy.vision_tower
    assert shared.connector_low is None
    assert policy.connector_low is not None
    assert shared.language_model is not policy.language_model


def test_every_part_takes_part_whatever_the_routing(policy, samples):
    policy.requires_grad_(True)
    pair = PolicyAndReference(policy, frozen_copy(policy, train_vision=False)).train()
    for chosen, share in ((samples, 0.0), (samples, 1.0), (samples[1:2], 0.5)):
        batch = collate(chosen, samples[1])
        policy.zero_grad()
        pair(batch, [fixed_share(batch, share, ("test",))]).kl.sum().backward()
        for part in (policy.connector_low, policy.connector_high, policy.language_model):
            assert all(parameter.grad is not None for parameter in part.parameters())


def test_parts_are_called_in_one_order_whatever_the_routing(policy, samples):
    """ZeRO-3 gathers the weights of a part when it is called: processes that disagree wait for each other for ever."""
    pair = PolicyAndReference(policy, frozen_copy(policy, train_vision=False)).eval()
    called = []
    for name, module in pair.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    orders = []
    for chosen, share in ((samples, 0.0), (samples, 0.5), (samples, 1.0), (samples[1:2], 0.5)):
        batch = collate(chosen, samples[1])
        called.clear()
        with torch.no_grad():
            pair(batch, [fixed_share(batch, share, ("test",))])
        orders.append(tuple(called))
    assert len(set(orders)) == 1


def test_embedding_and_head_are_one_again_behind_a_move(micro_model):
    policy = copy.deepcopy(micro_model)
    pair = PolicyAndReference(policy, frozen_copy(policy, train_vision=False))
    pair.to("meta")
    heads = [(model.get_output_embeddings(), model.get_input_embeddings()) for model in (policy, pair.reference)]
    assert not any(head.weight is embedding.weight for head, embedding in heads)
    pair.tie_weights()
    assert all(head.weight is embedding.weight for head, embedding in heads)


def test_vision_encoders_with_the_same_weights_are_found(micro_model):
    policy, same, other = (copy.deepcopy(micro_model) for _ in range(3))
    next(other.vision_tower.parameters()).data += 1
    assert has_same_vision(policy, same)
    assert not has_same_vision(policy, other)


def test_adapters_are_off_in_the_reference(micro_model, samples):
    policy = copy.deepcopy(micro_model)
    adapters = add_adapters(policy, LoraSettings(rank=2, alpha=4))
    batch = collate(samples, samples[1])
    high = torch.zeros(len(batch.tile_sample), dtype=torch.bool)
    pair = PolicyAndReference(policy, None, adapters=adapters).eval()
    with torch.no_grad():
        assert float(pair(batch, [high]).kl.abs().max()) < 1e-6
        for name, parameter in policy.language_model.named_parameters():
            if "lora_B" in name:
                parameter += 0.1
        copied = PolicyAndReference(policy, frozen_copy(micro_model, train_vision=True)).eval()
        torch.testing.assert_close(pair(batch, [high]).kl, copied(batch, [high]).kl, atol=1e-5, rtol=1e-4)
        assert float(pair(batch, [high]).kl.max()) > 1e-3


def test_a_reference_of_eight_bits_says_nearly_the_same(micro_model, samples):
    batch = collate(samples, samples[1])
    high = torch.zeros(len(batch.tile_sample), dtype=torch.bool)
    reference = frozen_copy(micro_model, train_vision=False)
    halve_reference(reference)
    weights = reference.language_model.model.layers[0].self_attn.q_proj.weight
    with torch.no_grad():
        kl = PolicyAndReference(micro_model, reference).eval()(batch, [high]).kl
    assert type(weights).__name__ == "Int8Tensor"
    assert 0 < float(kl.max()) < 1e-3


def test_a_skipped_sample_keeps_its_place_and_counts_for_nothing(samples):
    batch = collate([samples[0], Skipped("gone", "media", "cut off")], samples[1])
    assert batch.counts_in_loss.tolist() == [True, False]
    assert batch.samples[1] is samples[1]


def test_routing_depends_on_the_sample_and_not_on_its_neighbours(samples):
    together = random_share(collate(samples, samples[1]), (0, "train", 7))
    last = random_share(collate(samples[2:], samples[1]), (0, "train", 7))
    assert together.tolist()[-len(last) :] == last.tolist()


@pytest.mark.parametrize("per", ["image", "sample"])
def test_every_number_of_low_tiles_is_equally_likely(samples, per):
    batch = collate(samples[:1], samples[1])
    tiles = len(batch.tiles)
    counts = np.bincount(
        [int(random_share(batch, (step,), per=per).sum()) for step in range(1200)], minlength=tiles + 1
    )
    expected = 1200 / (tiles + 1)
    assert (abs(counts - expected) < 4.5 * np.sqrt(expected)).all()
    assert random_share(batch, (0,), per=per, at_least=tiles).all()


def low_tiles(sample, per, media, draws=600):
    """[draws, images and videos]: low tiles of each."""
    batch = collate([sample], sample)
    routings = [random_share(batch, (draw,), per=per).numpy() for draw in range(draws)]
    return np.array([np.bincount(media, routing, minlength=media.max() + 1) for routing in routings])


def test_each_image_draws_a_share_of_its_own(samples):
    media = samples[2].tile_image
    assert media.max() == 1
    assert abs(np.corrcoef(low_tiles(samples[2], "image", media).T)[0, 1]) < 0.15
    # One share for both makes both low or both high.
    assert np.corrcoef(low_tiles(samples[2], "sample", media).T)[0, 1] > 0.5


def test_the_frames_of_a_video_draw_a_share_together(samples):
    frames = len(samples[0].tiles)
    none = np.zeros(frames, dtype=np.int64)
    film = replace(samples[0], tile_image=np.arange(frames), tile_medium=none)
    counts = np.bincount(low_tiles(film, "image", none)[:, 0].astype(int), minlength=frames + 1)
    expected = 600 / (frames + 1)
    assert (abs(counts - expected) < 4.5 * np.sqrt(expected)).all()
