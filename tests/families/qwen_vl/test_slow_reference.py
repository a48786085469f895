"""FastV, DivPrune and the encoder's scores against a straightforward implementation with whole attention matrices."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb, apply_rotary_pos_emb_vision

from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text

KINDS = ("qwen2_5_vl", "qwen3_vl")
FIRST = GenerationSettings(max_new_tokens=1)

# Another order of sums moves these logits by 1e-5; a wrong token or position moves them by 1e-2 and more.
SAME = {"atol": 2e-4, "rtol": 2e-4}


def image(width, height, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


IMAGES = [image(230, 170, 0), image(90, 200, 1)]
ASKED = Request(
    "slow",
    (Message("user", (ImageInput(IMAGES[0]), Text("This, or "), ImageInput(IMAGES[1]), Text("that?"))),),
    generation=FIRST,
)


@pytest.fixture(scope="module")
def reference_of(qwen):
    @cache
    def get(kind):
        model = AutoModelForImageTextToText.from_pretrained(qwen(kind), trust_remote_code=False).eval()
        return Reference(model, AutoProcessor.from_pretrained(qwen(kind), trust_remote_code=False))

    return get


@pytest.fixture(scope="module")
def logits_of(qwen):
    """Logits of the first token of an answer by a method, and the engine that gave it."""

    def get(kind, method, **arguments):
        given = {"pretrained": str(qwen(kind)), "device": "cpu", "method": method, **arguments}
        engine, logits = open_engine(given, show_progress=False).engine, []
        engine.model.language_model.register_forward_hook(lambda _, __, made: logits.append(made.logits[0, -1]))
        answer = engine.answer([ASKED])[0]
        return logits[0], answer, engine

    return get


class Reference:
    """transformers' modules, called one by one on a prompt with two images."""

    @torch.inference_mode()
    def __init__(self, model, processor):
        content = [{"type": "image"}, {"type": "text", "text": "This, or "}, {"type": "image"}]
        content.append({"type": "text", "text": "that?"})
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        self.inputs = processor(text=[text], images=IMAGES, return_tensors="pt")
        self.model, ids = model, self.inputs["input_ids"]
        self.is_visual = ids[0] == model.config.image_token_id
        seen = model.get_image_features(self.inputs["pixel_values"], self.inputs["image_grid_thw"], return_dict=True)
        self.images = list(seen.pooler_output)
        embeddings = model.get_input_embeddings()(ids)[0].clone()
        embeddings[self.is_visual] = torch.cat(self.images)
        self.embeddings = embeddings
        self.positions, _ = model.model.get_rope_index(
            ids, self.inputs["mm_token_type_ids"], image_grid_thw=self.inputs["image_grid_thw"]
        )
        features = getattr(seen, "deepstack_features", None) or []
        self.added = []
        for feature in features:
            whole = torch.zeros_like(embeddings)
            whole[self.is_visual] = torch.cat(list(feature))
            self.added.append(whole)

    @torch.inference_mode()
    def logits(self, kept, leave=None):
        """Of the last token.

        Args:
            kept: [tokens], bool: those that enter the decoder.
            leave: before which layer tokens leave, and what says by the whole attention of the one before which go on.
        """
        text = self.model.model.language_model
        kept = kept.nonzero()[:, 0]
        hidden, attention = self.embeddings[kept], None
        for index, layer in enumerate(text.layers):
            if leave is not None and index == leave[0]:
                stays = leave[1](attention, self.is_visual[kept])
                kept, hidden = kept[stays], hidden[stays]
            hidden, attention = self.layer(text, layer, hidden, self.positions[:, :, kept])
            if index < len(self.added):
                hidden = hidden + self.added[index][kept]
        return self.model.lm_head(text.norm(hidden[-1]))

    def layer(self, text, layer, hidden, positions):
        """What a layer makes of [tokens, D], and its attention weights [heads, tokens, tokens]."""
        cos, sin = text.rotary_emb(hidden[None], positions)
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        norms = [getattr(attention, name, None) or torch.nn.Identity() for name in ("q_norm", "k_norm")]
        width = attention.head_dim
        query = norms[0](attention.q_proj(normed).unflatten(-1, (-1, width)))
        key = norms[1](attention.k_proj(normed).unflatten(-1, (-1, width)))
        value = attention.v_proj(normed).unflatten(-1, (-1, width)).transpose(0, 1)
        query, key = apply_rotary_pos_emb(query.transpose(0, 1)[None], key.transpose(0, 1)[None], cos, sin)
        group = query.shape[1] // key.shape[1]
        key, value = key[0].repeat_interleave(group, dim=0), value.repeat_interleave(group, dim=0)
        logits = query[0] @ key.transpose(1, 2) * width**-0.5
        behind = torch.ones(len(hidden), len(hidden), dtype=torch.bool).triu(1)
        weights = logits.masked_fill(behind, float("-inf")).softmax(dim=-1)
        hidden = hidden + attention.o_proj((weights @ value).transpose(0, 1).flatten(1))
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden)), weights


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_everything_is_the_slow_model(logits_of, reference_of, kind):
    reference = reference_of(kind)
    everything = torch.ones_like(reference.is_visual)
    torch.testing.assert_close(logits_of(kind, "vanilla")[0], reference.logits(everything), **SAME)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_fastv(logits_of, reference_of, kind, layer):
    # Qwen3-VL's small model adds features behind layers 0 and 1: tokens leave before, between and behind them.
    reference = reference_of(kind)

    def most_attended(attention, is_visual):
        score = attention.mean(dim=0)[-1]
        ranked = sorted(is_visual.nonzero()[:, 0].tolist(), key=lambda token: -float(score[token]))
        stays = ~is_visual
        stays[ranked[: round(0.3 * len(ranked))]] = True
        return stays

    found, answer, _ = logits_of(kind, "fastv", layer=layer, keep_ratio=0.3)
    everything = torch.ones_like(reference.is_visual)
    torch.testing.assert_close(found, reference.logits(everything, (layer, most_attended)), **SAME)
    whole = int(reference.is_visual.sum())
    left = round(0.3 * whole)
    assert answer.account.visual_tokens_per_layer == (whole,) * layer + (left,) * (6 - layer)


def most_diverse(tokens, num_keep):
    """Places of tokens far from each other: first the one whose nearest neighbour is farthest, then one by one."""
    units = tokens / tokens.norm(dim=1, keepdim=True)
    distance = (1 - units @ units.T).tolist()
    every = range(len(distance))
    chosen = [max(every, key=lambda token: min(distance[token][other] for other in every if other != token))]
    while len(chosen) < num_keep:
        rest = [token for token in every if token not in chosen]
        chosen.append(max(rest, key=lambda token: min(distance[token][other] for other in chosen)))
    return sorted(chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_divprune_image_by_image(logits_of, reference_of, kind):
    reference = reference_of(kind)
    kept, first = ~reference.is_visual, 0
    places = reference.is_visual.nonzero()[:, 0]
    for tokens in reference.images:
        kept[places[[first + token for token in most_diverse(tokens, round(0.4 * len(tokens)))]]] = True
        first += len(tokens)
    found, answer, _ = logits_of(kind, "divprune", keep_ratio=0.4)
    torch.testing.assert_close(found, reference.logits(kept), **SAME)
    assert answer.account.visual_tokens == sum(round(0.4 * len(tokens)) for tokens in reference.images)


def raster(model, cos, sin, rows, columns):
    """Row and column of each patch of an image, told by its rotary embedding."""
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    known = torch.cat(model.model.visual.rotary_pos_emb(torch.zeros(1), grid), dim=-1)
    # By subtraction: as a matrix product, a distance of 0 would come out as 0.002.
    distance = torch.cdist(torch.cat([cos, sin], dim=-1), known, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distance.min(dim=1).values.max()) < 1e-5
    return grid[distance.argmin(dim=1)]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_scores_and_keys_of_the_encoder_stand_where_their_tokens_do(logits_of, reference_of, kind):
    reference, (_, _, engine) = reference_of(kind), logits_of(kind, "visionzip", keep_ratio=0.5)
    (seen,) = engine.rows[0].see([engine.preprocessor(ASKED)])
    scores, keys = seen.visual.scores, seen.visual.keys
    vision = reference.model.model.visual
    attention = vision.blocks[-1 if kind == "qwen2_5_vl" else -2].attn
    noted = []
    hook = attention.register_forward_hook(lambda _, inputs, named, __: noted.append((inputs, named)), with_kwargs=True)
    vision(reference.inputs["pixel_values"], grid_thw=reference.inputs["image_grid_thw"])
    hook.remove()
    ((inputs, named),) = noted
    hidden = inputs[0] if inputs else named["hidden_states"]
    query, key, _ = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *named["position_embeddings"])
    patch = token = 0
    for _, rows, columns in reference.inputs["image_grid_thw"].tolist():
        span = slice(patch, patch + rows * columns)
        weights = torch.einsum("qhd,khd->hqk", query[span], key[span]) * attention.scaling
        received = weights.softmax(dim=-1).mean(dim=(0, 1))
        places = raster(reference.model, *(table[span] for table in named["position_embeddings"]), rows, columns)
        for row in range(rows // 2):
            for column in range(columns // 2):
                here = ((places // 2) == torch.tensor([row, column])).all(dim=1)
                assert int(here.sum()) == 4
                torch.testing.assert_close(scores[token], received[here].mean(), atol=1e-6, rtol=1e-3)
                torch.testing.assert_close(keys[token], key[span][here].mean(dim=(0, 1)), atol=1e-4, rtol=1e-3)
                assert seen.visual.grid_yx[token].tolist() == [row, column]
                token += 1
        patch += rows * columns
    assert token == len(scores)
