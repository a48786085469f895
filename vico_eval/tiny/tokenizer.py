"""The tiny model's tokenizer: one token per byte, followed by the chat format's special tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IMAGE_CONTEXT_TOKEN = "<IMG_CONTEXT>"
END_OF_TURN = "<|im_end|>"
PAD = "<|endoftext|>"
SPECIAL_TOKENS = (PAD, "<|im_start|>", END_OF_TURN, "<img>", "</img>", IMAGE_CONTEXT_TOKEN)
"""In order of their ids, from 256."""


def byte_characters() -> list[str]:
    """Return the character of each byte 0-255 in the byte-level scheme of `tokenizers`.

    Printable bytes are their own characters; the others are characters from U+0100 on (Radford et al., 2019, GPT-2).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters, stand_in = [], 0x100
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(stand_in))
            stand_in += 1
    return characters


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a fast tokenizer whose ids 0-255 are bytes, so that any text can be encoded and decoded.

    Turns end with `<|im_end|>`, padding is `<|endoftext|>`, and no token is added at the start.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in (END_OF_TURN, PAD)],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=8192,
    )
