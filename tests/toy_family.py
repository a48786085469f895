"""A second family, as small as the contract allows: LLaVA's shape, of transformers' own classes with random weights.

A CLIP-like encoder that takes each image whole, a linear connector, and Llama. It has no tiles and routes nothing.
"""

from hashlib import sha256

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from vico_eval.engine.engine import Engine
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.families.encoder_attention import LayerInput
from vico_eval.families.family import FamilyModel, Look, Picture, Prompting, Seen, Sight, Slot, Stand, Strip
from vico_eval.families.frame_choice import frame_indices
from vico_eval.methods import registry
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    QUESTION,
    ModelFacts,
    TileLimits,
    VisualTokens,
)
from vico_eval.tiny.tokenizer import build_tokenizer

SIDE, PATCH = 56, 8
GRID = SIDE // PATCH
IMAGE = "<IMG_CONTEXT>"


class ToyPrompting(Prompting):
    image_token = IMAGE
    slot = IMAGE
    control = (IMAGE, "<|im_end|>")
    end = "<|im_end|>"
    stop = "<|im_end|>"

    def render(self, turns, system):
        said = "".join(f"{role.upper()}: {text}{self.end}" for role, text in turns)
        return f"{system or ''}{said}ASSISTANT:"

    def slot_ids(self, vocabulary):
        return Slot(ids=(vocabulary[IMAGE],), before=(), after=())

    def image(self, number, *, is_inline=False):
        return Stand(f"{self.slot}\n")

    def limits(self, asked, num_images):
        return TileLimits(1, 1)

    def cut(self, image, limits, resolution=None):
        assert resolution is None, "Method.check refuses a resolution where there are no tiles"
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))[None]
        return Picture(pixels, 1, 1, (sha256(pixels.data).digest(),))

    def cut_frame(self, frame):
        return self.cut(frame, TileLimits(1, 1))

    def choose_frames(self, total, fps, num_frames, rate=None, **stretch):
        return frame_indices(total, num_frames or 8, **stretch)

    def show(self, clip):
        return Strip([self.cut_frame(frame) for frame in clip.frames], Stand(f"{self.slot}\n" * len(clip.frames)))


class Toy(FamilyModel, nn.Module):
    def __init__(self, image_token_id, vocabulary_size, num_layers=4):
        super().__init__()
        torch.manual_seed(0)
        self._image_token_id = image_token_id
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
        vision = CLIPVisionConfig(**sizes, num_hidden_layers=3, image_size=SIDE, patch_size=PATCH)
        text = LlamaConfig(
            **{**sizes, "num_attention_heads": 6, "hidden_size": 48},
            num_hidden_layers=num_layers,
            num_key_value_heads=2,
            vocab_size=vocabulary_size,
            max_position_embeddings=4096,
        )
        self.vision_tower = CLIPVisionModel._from_config(vision)
        self.connector = nn.Linear(vision.hidden_size, text.hidden_size)
        self.language_model = LlamaForCausalLM._from_config(text)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2)
        self.eval()

    @property
    def image_token_id(self):
        return self._image_token_id

    @property
    def facts(self):
        config = self.language_model.config
        return ModelFacts(
            checkpoint="toy",
            family="toy",
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            offers=frozenset({ENCODER_ATTENTION, ENCODER_KEYS, QUESTION, CONNECTOR_INPUTS}),
            score_sources=frozenset({"cls", "mean"}),
            num_vision_layers=self.vision_tower.config.num_hidden_layers,
        )

    def sights(self, looks):
        return [ToySight(self, look) for look in looks]


class ToySight(Sight):
    def __init__(self, model, look: Look):
        self._model, self._look, self._layer = model, look, None
        if look.selection is not None and look.selection.needs & {ENCODER_ATTENTION, ENCODER_KEYS}:
            rows, layer = look.selection.score_source
            attention = model.vision_tower.encoder.layers[layer].self_attn
            self._layer = LayerInput(attention, rows=rows, has_class_token=True)

    def __call__(self, batch):
        return [self._see(shown) for shown in batch]

    def _see(self, shown):
        if not shown.pictures:
            return Seen(tokens=self._model.no_visual_tokens(), per_image=[], uncompressed=0)
        pixels = torch.from_numpy(np.concatenate([picture.pieces for picture in shown.pictures]))
        pixels = pixels.to(self._model.decoder_device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self._layer is None:
            patches, attention = self._encode(pixels), None
        else:
            with self._layer.watching():
                patches = self._encode(pixels)
            attention = self._layer.taken()
        tokens = self._model.connector(patches).flatten(0, 1)
        num_images = len(shown.pictures)
        visual = None
        if self._look.selection is not None:
            place = torch.arange(GRID**2, device=tokens.device).repeat(num_images)
            visual = VisualTokens(
                key=shown.key,
                tokens=tokens,
                image=torch.arange(num_images, device=tokens.device).repeat_interleave(GRID**2),
                tile=torch.full_like(place, -1),
                grid_yx=torch.stack([place // GRID, place % GRID], dim=1).float(),
                scores=None if attention is None else attention.scores.flatten(),
                keys=None if attention is None else attention.keys.flatten(0, 1),
                connect_mixed=lambda members, weights: self._model.connector(weights @ patches.flatten(0, 1)[members]),
            )
        return Seen(tokens=tokens, per_image=[GRID**2] * num_images, uncompressed=num_images * GRID**2, visual=visual)

    def _encode(self, pixels):
        """[images, patches, C] behind the last layer but one, as in LLaVA."""
        found = self._model.vision_tower(pixel_values=pixels, output_hidden_states=True)
        return found.hidden_states[-2][:, 1:]


def toy_engine(method: str, arguments: dict) -> Engine:
    """An engine on the family, checked as a loaded checkpoint would be."""
    tokenizer = build_tokenizer()
    model = Toy(tokenizer.convert_tokens_to_ids(IMAGE), len(tokenizer))
    built = registry.build(method, arguments).resolved().suited(model.facts)
    built.check(model.facts)
    preprocessor = Preprocessor(tokenizer, ToyPrompting(), resolution=built.resolution)
    return Engine(model, tokenizer, preprocessor, [built], show_progress=False)
