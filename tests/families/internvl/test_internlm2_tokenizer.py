"""InternLM2's tokenizer files load without their code, and give the ids that their code gives.

The reference is that code's rule on sentencepiece itself: BOS, the added tokens, and every text between them encoded
on its own.
"""

import io
import json
import random
import re
from pathlib import Path

import pytest
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, StopStringCriteria

import vico_eval
from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import Checkpoint, load_tokenizer
from vico_eval.families.internvl.internlm2_tokenizer import InternLM2Tokenizer
from vico_eval.families.internvl.plain_tokenizer import plain_tokenizer
from vico_eval.families.internvl.prompts import get_template

GOLDEN = Path(__file__).parents[2] / "golden" / "internvl_x" / "model"

# In the vocabulary under placeholder names; the others stand behind it.
RENAMED = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>"]
APPENDED = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]


def train(*, dummy_prefix):
    """A small sentencepiece model of InternLM2's kind: BPE, bytes for what is unknown, spaces kept."""
    pick = random.Random(0)
    words = ["".join(pick.choice("etaoinshr") for _ in range(pick.randint(1, 6))) for _ in range(200)]
    lines = [" ".join(pick.choice(words) for _ in range(10)) for _ in range(300)]
    lines += ["the number is  1234", "什么 颜色"] * 50
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=600,
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        user_defined_symbols=[f"[UNUSED_TOKEN_{number}]" for number in range(141, 147)],
        minloglevel=2,
        num_threads=1,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write(folder, model, *, early):
    """The files of a release; early ones name the added tokens beside tokenizer_config.json only."""
    added = {token: model.piece_to_id(f"[UNUSED_TOKEN_{141 + i}]") for i, token in enumerate(RENAMED)}
    added |= {token: model.get_piece_size() + i for i, token in enumerate(APPENDED)}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    special = {
        "additional_special_tokens": [*RENAMED, *APPENDED],
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
    }
    config = special | {
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "tokenizer_class": "InternLM2Tokenizer",
    }
    if not early:
        ids = {"<unk>": 0, "<s>": 1, "</s>": 2} | added
        config |= {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {str(number): {"content": token, **plain} for token, number in ids.items()},
        }
    (folder / "tokenizer.model").write_bytes(model.serialized_model_proto())
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenization_internlm2.py").write_text("raise SystemExit('remote code was run')\n")
    return added | {"<unk>": 0, "<s>": 1, "</s>": 2}


def load(folder):
    return load_tokenizer(Checkpoint(name="x", folder=folder, config=None, weights={}))


@pytest.fixture(scope="module", params=[False, True], ids=["as released", "dummy prefix"])
def model(request):
    return train(dummy_prefix=request.param)


@pytest.fixture(params=[False, True], ids=["tokens in the config", "tokens beside it"])
def tokens(request, model, tmp_path):
    """Ids of the added tokens; the files lie in `tmp_path`."""
    return write(tmp_path, model, early=request.param)


def reference(model, tokens, text):
    ids = [model.bos_id()]
    for piece in re.split("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")", text):
        ids += [tokens[piece]] if piece in tokens else model.encode(piece)
    return ids


def prompt_of(question, num_visual):
    """A question about one picture, with its visual tokens."""
    picture = f"<img>{'<IMG_CONTEXT>' * num_visual}</img>\n"
    return get_template("internlm2-chat").render([("user", picture + question)])


TEXTS = [
    prompt_of("What  number? \n\n é 🐉\t 12", 8),
    *("", " ", "\n", " leading", "trailing ", "a  b", "\ttab\n\n", "<ref>the number</ref><box>[[1, 2]]</box>"),
    *("什么颜色", "é", "🐉", "a▁b", "<|im_end|> x<|im_end|>", "<s>x</s>", "<im_end>", "[UNUSED_TOKEN_145]"),
]


def test_ids_are_the_references(model, tokens, tmp_path):
    tokenizer = load(tmp_path)
    pick = random.Random(1)
    pieces = ["e", "the", " ", "  ", "\n", "<img>", "th", "1", "什", "é", "<|im_end|>", " a"]
    texts = TEXTS + ["".join(pick.choice(pieces) for _ in range(pick.randint(1, 20))) for _ in range(200)]
    for text in texts:
        assert tokenizer(text).input_ids == reference(model, tokens, text), repr(text)


def test_special_tokens(tokens, tmp_path):
    tokenizer = load(tmp_path)
    assert isinstance(tokenizer, InternLM2Tokenizer)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.convert_tokens_to_ids([*RENAMED, *APPENDED]) == [tokens[name] for name in [*RENAMED, *APPENDED]]
    assert len(tokenizer) == max(tokens.values()) + 1


def test_ids_become_text_again(model, tokens, tmp_path):
    tokenizer = load(tmp_path)
    for text in ("the number is  12\n\té 🐉 什么", "x"):
        ids = tokenizer(f"{text}<|im_end|>").input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.decode(ids) == f"<s>{text}<|im_end|>"


def test_stop_strings_are_known(tokens, tmp_path):
    tokenizer = load(tmp_path)
    criterion = StopStringCriteria(tokenizer, ["\n\n"])
    ends = tokenizer("the number\n\n", return_tensors="pt").input_ids
    goes_on = tokenizer("the number\n", return_tensors="pt").input_ids
    assert criterion(ends, None).tolist() == [True]
    assert criterion(goes_on, None).tolist() == [False]


def test_saved_it_loads_again(model, tokens, tmp_path, tmp_path_factory):
    ours = tmp_path_factory.mktemp("ours")
    load(tmp_path).save_pretrained(ours)
    again = load(ours)
    for text in TEXTS:
        assert again(text).input_ids == reference(model, tokens, text), repr(text)


def test_a_broken_model_file(tokens, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"version 1\nsize 3\n")
    with pytest.raises(CheckpointError, match=r"the tokenizer in .* can't be loaded"):
        load(tmp_path)


def test_without_the_model_file(tokens, tmp_path):
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer: expected .*tokenizer\.model"):
        load(tmp_path)


def test_a_whole_checkpoint_answers_with_the_references_prompt(model, tokens, tmp_path):
    # The reference model, with a vocabulary for this tokenizer.
    config = json.loads((GOLDEN / "config.json").read_text())
    tensors = load_file(GOLDEN / "model.safetensors")
    vocabulary = torch.randn(len(load(tmp_path)), 64, generator=torch.Generator().manual_seed(0))
    tensors["language_model.model.tok_embeddings.weight"] = tensors["language_model.output.weight"] = vocabulary
    config["llm_config"]["vocab_size"] = len(vocabulary)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    seen = []
    asked = vico_eval.load(str(tmp_path), method="pvtc", device="cpu")
    decoder = asked.engine.model.language_model
    decoder.register_forward_pre_hook(lambda _, __, given: seen.append(given["inputs_embeds"]), with_kwargs=True)
    answer = asked.ask("the number?", images=[Image.new("RGB", (224, 112))], max_new_tokens=1)
    prompt = prompt_of("the number?", 3 * 16)
    ids = torch.tensor(reference(model, tokens, prompt))
    is_text = ids != tokens["<IMG_CONTEXT>"]
    assert torch.equal(seen[0][0, is_text], vocabulary[ids[is_text]])
    assert (answer.account.visual_tokens, answer.account.text_tokens) == (3 * 16, int(is_text.sum()))
    assert ids[0] == 1


def test_a_plain_tokenizer_has_the_same_ids_and_texts(model, tokens, tmp_path):
    """As a folder that transformers loads by itself, beside a Llama's config.json."""
    ours = load(tmp_path)
    plain_tokenizer(ours).save_pretrained(tmp_path / "plain")
    (tmp_path / "plain" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    plain = AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert not isinstance(plain, InternLM2Tokenizer)
    assert len(plain) == len(ours)
    assert (plain.bos_token_id, plain.eos_token_id, plain.pad_token_id) == (1, 2, 2)
    puts_space = model.encode("e", out_type=str)[0].startswith("▁")
    for text in TEXTS:
        ids = ours(text).input_ids
        if text != "[UNUSED_TOKEN_145]":
            assert plain(text).input_ids == ids, repr(text)
        if not puts_space:
            assert plain.decode(ids) == ours.decode(ids)
        answer = [*model.encode(text), tokens["<|im_end|>"]]
        assert plain.decode(answer, skip_special_tokens=True) == ours.decode(answer, skip_special_tokens=True)
