"""Conversion of InternLM2's tokenizer, for which transformers has no class, to one that it loads without this package.

Ids and texts are the same.

Differs: a literal placeholder (`[UNUSED_TOKEN_9]`) is text. With a sentencepiece model that adds a space before every
        text, which no release has, text after a special token is decoded with that space.
"""

from __future__ import annotations

from collections.abc import Mapping

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from vico_eval.families.internvl.internlm2_tokenizer import InternLM2Tokenizer

_SPACE = "▁"


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer itself, or a replacement for InternLM2's."""
    if not isinstance(tokenizer, InternLM2Tokenizer):
        return tokenizer
    pieces: SentencePieceProcessor = tokenizer.sp_model
    puts_space = pieces.encode("a", out_type=str)[0].startswith(_SPACE)
    backend = Tokenizer(_bpe(pieces, tokenizer.added_tokens_decoder))
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(_SPACE)] if puts_space else []), normalizers.Replace(" ", _SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            *(decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()),
            *([decoders.Strip(" ", left=1)] if puts_space else []),
        ]
    )
    if tokenizer("").input_ids == [tokenizer.bos_token_id]:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{tokenizer.bos_token} $A",
            pair=f"{tokenizer.bos_token} $A {tokenizer.bos_token} $B",
            special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)],
        )
    plain = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        **{name: getattr(tokenizer, name) for name in ("unk_token", "bos_token", "eos_token", "pad_token")},
    )
    plain.add_tokens([token for _, token in sorted(tokenizer.added_tokens_decoder.items())], special_tokens=True)
    plain.chat_template = tokenizer.chat_template
    return plain


def _bpe(pieces: SentencePieceProcessor, added: Mapping[int, object]) -> BPE:
    """Return merges in order of the scores of their results, as sentencepiece applies them."""
    names = {number: pieces.id_to_piece(number) for number in range(pieces.get_piece_size())}
    made = {
        name: pieces.get_score(number)
        for number, name in names.items()
        if not (pieces.is_control(number) or pieces.is_unknown(number) or pieces.is_byte(number))
    }
    merges = [
        (score, (name[:cut], name[cut:]))
        for name, score in made.items()
        for cut in range(1, len(name))
        if name[:cut] in made and name[cut:] in made
    ]
    merges.sort(key=lambda merge: merge[0], reverse=True)
    # Added tokens replace placeholders.
    vocabulary = {str(added.get(number, name)): number for number, name in names.items()}
    kept = [pair for _, pair in merges if {*pair, "".join(pair)} <= vocabulary.keys()]
    return BPE(
        vocab=vocabulary, merges=kept, unk_token=pieces.id_to_piece(pieces.unk_id()), fuse_unk=True, byte_fallback=True
    )
