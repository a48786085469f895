"""Small files in every format, a tokenizer of Qwen's kind, and samples prepared with it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.tiny.build import write_video
from vico_eval.training.data.prepare import Prepare

SPECIAL = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<|endoftext|>"]
# Qwen's own way of cutting text into words.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="session")
def bpe():
    """Merges across line breaks, so that an answer that begins with one would merge with its head."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["system\nuser\nassistant\n\n\n\nWhat is it?\nIt is a cat.\n\nYes."] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.fixture
def make_preprocessor(bpe) -> Callable[..., Preprocessor]:
    def make(tokenizer=bpe, **settings):
        own = {"tile_size": 28, "num_frames": 3, "system_message": "", **settings}
        return Preprocessor(tokenizer, InternVLPrompting(InternVLSettings(**own)))

    return make


@pytest.fixture
def make_prepare(make_preprocessor) -> Callable[..., Prepare]:
    """A tile is 4 tokens, a sample at most 400."""

    def make(*, max_length=400, augment=True, **settings):
        return Prepare(make_preprocessor(**settings), max_length=max_length, tokens_per_tile=4, augment=augment)

    return make


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one.png` of one tile, `wide.png` of two and a thumbnail, `film.mp4`, and `cut.png` that ends too early."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, (width, height) in {"one": (28, 28), "wide": (56, 28)}.items():
        blocks = rng.integers(0, 256, (height // 7, width // 7, 3), dtype=np.uint8)
        Image.fromarray(blocks.repeat(7, axis=0).repeat(7, axis=1)).save(folder / f"{name}.png")
    write_video(folder / "film.mp4", tuple(Image.new("RGB", (32, 32), (60 * shade,) * 3) for shade in range(4)))
    whole = (folder / "wide.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


def line(*said, **others):
    """A line of InternVL's format; a human begins."""
    turns = [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(said)]
    return {"conversations": turns, **others}


@pytest.fixture(scope="session")
def say():
    return line


@pytest.fixture
def write_lines(tmp_path) -> Callable[..., Path]:
    def write(name, lines):
        path = tmp_path / name
        path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
        return path

    return write
