"""What holds for every method and every combination, on every family. A new method is tested by being registered.

Random weights, real values: any token that is lost, doubled or misplaced changes the logits.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import Text, VideoInput
from vico_eval.methods import registry
from vico_eval.methods.interface import PixelPart
from vico_eval.methods.registry import build, method_names
from vico_eval.methods.visionzip import num_contextual

from .systems import SYSTEMS, picture, request

QWEN = ("qwen2_5_vl", "qwen3_vl")
FAMILIES = ("internvl", "toy", *QWEN)


def runs_on(family, system):
    """Whether a family can run a method: all can select, and change tokens in the decoder."""
    method = build(*system)
    sets_pixels = isinstance(method.resolution, PixelPart)
    if family == "internvl":
        return not sets_pixels
    connector = method.connector
    routes = connector is not None and bool(connector.routes or connector.runs)
    resizes = method.resolution is None or (sets_pixels and family in QWEN)
    return resizes and not routes and not any(part.runs for part in method.parts)


CASES = [(family, name) for family in FAMILIES for name, system in SYSTEMS.items() if runs_on(family, system)]

# How each method is told to keep every token. A new one says it here, or that it can't.
KEEP_ALL = {
    "vanilla": {},
    "vico": {"absolute_threshold": 1.0},
    "vanilla_vir": {"absolute_threshold": 1.0},
    "image_vir": {"absolute_threshold": 1.0},
    "random": {"ratio": 0.0},
    "downsample": {"tile_keep_ratio": 1.0},
    "max_pixels": {"pixel_keep_ratio": 1.0},
    "pool": {"ratio": 0.0},
    # the pictures here are of whole tiles, which no limit takes away
    "rvtc_ratio": {},
    "rvtc_edge": {},
    "rvtc_area": {},
    "pvtc": {},
    "random_tokens": {"keep_ratio": 1.0},
    **{
        name: {"keep_ratio": 1.0}
        for name in ("top_attention", "divprune", "visionzip", "vispruner", "cdpruner", "holov")
    },
    "fastv": {"keep_ratio": 1.0},
    "sparsevlm": {"target_ratio": 1.0},
    "vico+fastv": {"absolute_threshold": 1.0, "keep_ratio": 1.0},
    "dart": {"target_ratio": 1.0},
    "fitprune": {"recipe": "llava", "target_ratio": 1.0},
    "pyramiddrop": {"target_ratio": 1.0},
    "vico+pyramiddrop": {"absolute_threshold": 1.0, "shares": "1/1/1"},
    "downsample+vico+sparsevlm": {"absolute_threshold": 1.0, "tile_keep_ratio": 1.0, "target_ratio": 1.0},
}
NEVER_ALL = {"single_tile", "all_compress", "lvtc"}

# Sums in another order differ by 1e-6; a wrong position or a lost token moves these logits by 1e-2 and more.
SAME = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def requests(tmp_path_factory, write_video):
    """No image, one tile, many tiles, several images with text between them, and a video of eight frames."""
    video = write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 8)
    return [
        request(0, Text("No picture at all, but quite a long question to answer.")),
        request(1, picture(1, 1, 1), Text("Which?")),
        request(2, picture(3, 2, 2), Text("What is the number in the third row?")),
        request(3, picture(1, 1, 3), Text("This, or rather"), picture(2, 1, 4), Text("that one?")),
        request(4, VideoInput(video), Text("What happens?")),
    ]


@pytest.fixture(scope="module")
def engine_of(checkpoint_for, toy_engine, qwen):
    engines = {}

    def get(method, arguments, family="internvl", **settings) -> Engine:
        key = repr((family, method, arguments, settings))
        if key not in engines and family == "toy":
            engines[key] = toy_engine(method, arguments)
        elif key not in engines:
            checkpoint = {"pretrained": str(qwen(family))} if family in QWEN else checkpoint_for(method)
            given = checkpoint | {"method": method, "device": "cpu"} | arguments | settings
            engines[key] = open_engine(given, show_progress=False).engine
        engines[key].batch_size = 1
        return engines[key]

    return get


def parametrised(cases):
    return {"params": cases, "ids": [" ".join(case) for case in cases]}


@pytest.fixture(**parametrised(CASES))
def engine(request, engine_of):
    family, name = request.param
    return engine_of(*SYSTEMS[name], family)


@pytest.fixture(**parametrised([case for case in CASES if build(*SYSTEMS[case[1]]).decoder is not None]))
def changing_engine(request, engine_of):
    family, name = request.param
    return engine_of(*SYSTEMS[name], family)


@pytest.fixture(**parametrised([case for case in CASES if build(*SYSTEMS[case[1]]).selection is not None]))
def selecting_engine(request, engine_of):
    family, name = request.param
    return engine_of(*SYSTEMS[name], family)


@dataclass
class Watch:
    """What one request's way through the decoder looked like."""

    answer: object = None
    embeddings: torch.Tensor = None
    cache: object = None
    given: dict = field(default_factory=dict)
    """What the decoder was told of a prompt beside its embeddings, where a family has positions of its own."""

    logits: list = field(default_factory=list)
    """Of the last position at every step."""

    layers: list = field(default_factory=list)
    """Input and output of each layer in prefill."""


def watch(engine, one) -> Watch:
    seen = Watch()
    model = engine.model.language_model

    def before(_, args, kwargs):
        if kwargs.get("inputs_embeds") is not None:
            seen.embeddings = kwargs["inputs_embeds"]
            seen.cache = kwargs["past_key_values"]
            if kwargs["position_ids"].ndim == 3:
                seen.given = {"position_ids": kwargs["position_ids"], "prompt": kwargs["prompt"]}

    def behind_layer(_, args, output):
        if len(seen.layers) < len(model.model.layers):
            seen.layers.append((args[0], output))

    handles = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(lambda _, args, output: seen.logits.append(output.logits[:, -1])),
        *(layer.register_forward_hook(behind_layer) for layer in model.model.layers),
    ]
    seen.answer = engine.answer([one])[0]
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(scope="module")
def watched():
    """What was seen of each engine and request, once for all tests: they only look."""
    seen = {}

    def get(engine, one) -> Watch:
        key = (id(engine), one.key)
        if key not in seen:
            seen[key] = watch(engine, one)
        return seen[key]

    return get


def test_every_method_says_how_it_keeps_every_token():
    unsaid = sorted(set(method_names()) - set(KEEP_ALL) - NEVER_ALL)
    assert unsaid == [], "say in KEEP_ALL how they keep every token, or in NEVER_ALL that they can't"


@pytest.mark.parametrize(
    ("family", "method"),
    [(family, name) for family in FAMILIES for name, given in KEEP_ALL.items() if runs_on(family, (name, given))],
)
def test_keeping_every_token_is_the_plain_model_to_the_bit(engine_of, watched, requests, untrained, method, family):
    weights = {"pretrained": str(untrained / "pvtc")} if method == "pvtc" else {}
    plain, kept = engine_of("vanilla", {}, family, **weights), engine_of(method, KEEP_ALL[method], family)
    for one in requests:
        expected, seen = watched(plain, one), watched(kept, one)
        assert torch.equal(torch.cat(seen.logits), torch.cat(expected.logits))
        counts = seen.answer.account
        assert set(counts.visual_tokens_per_layer) == {counts.visual_tokens_uncompressed}


def test_a_selection_keeps_its_number_of_every_group_and_the_account_says_so(selecting_engine, requests):
    part = selecting_engine.method.selection
    merges = "visionzip" in selecting_engine.method.name
    for one in requests:
        prepared = selecting_engine.preprocessor(one)
        with torch.inference_mode():
            (seen,) = selecting_engine.rows[0].see([prepared])
        by_image = seen.tiles is None or getattr(part.config, "group", "tile") == "image"
        groups = seen.per_image if by_image else seen.tiles.counts
        counts = part.config.num_keep(one.key, groups)
        account = selecting_engine.answer([one])[0].account
        assert account.visual_tokens_before_selection == sum(groups)
        assert account.visual_tokens == sum(counts)
        assert account.visual_tokens_per_layer[0] == account.visual_tokens
        assert account.merged_tokens == (sum(map(num_contextual, counts)) if merges else 0)


def test_alone_in_a_batch_and_in_any_order_answers_and_accounts_are_the_same(engine, requests, same_answers):
    alone = engine.answer(requests)
    engine.batch_size = 5
    assert same_answers(engine.answer(requests), alone)
    engine.batch_size = 2
    assert same_answers(engine.answer(requests[::-1]), alone[::-1])


def test_cached_decoding_is_an_uncached_forward_over_prompt_and_answer(engine, watched, requests):
    model = engine.model.language_model
    for one in requests:
        seen = watched(engine, one)
        # The answer's last token is never fed, so the others and the prompt give all its logits.
        tokens = [int(logits.argmax()) for logits in seen.logits][:-1]
        answer = engine.model.embedding(torch.tensor([tokens], dtype=torch.long))
        prompt = dict(seen.given) if engine.method.decoder is None else seen.given | {"prompt": seen.cache.prompt}
        if prompt.get("position_ids") is not None:
            steps = torch.arange(1, len(tokens) + 1)
            places = prompt["position_ids"]
            prompt["position_ids"] = torch.cat([places, places[..., -1:] + steps], dim=-1)
        with torch.inference_mode():
            uncached = model(inputs_embeds=torch.cat([seen.embeddings, answer], dim=1), use_cache=False, **prompt)
        expected = uncached.logits[0, -len(seen.logits) :]
        torch.testing.assert_close(torch.cat(seen.logits), expected, **SAME)


def test_every_layers_cache_is_as_long_as_the_account_says(engine, watched, requests):
    for one in requests:
        seen = watched(engine, one)
        account = seen.answer.account
        fed = len(seen.logits) - 1
        assert account.generated_tokens == len(seen.logits)
        lengths = [layer.get_seq_length() for layer in seen.cache.layers]
        assert lengths == [visual + account.text_tokens + fed for visual in account.visual_tokens_per_layer]
        worked_on = [inputs.shape[1] for inputs, _ in seen.layers]
        whole = [visual + account.text_tokens for visual in account.visual_tokens_per_layer]
        # The last layer keeps keys and values of all tokens and answers for the last one.
        assert worked_on == [*whole[:-1], 1 if engine.model.ends_early else whole[-1]]


def assert_places(segment, first, *, renumbers):
    """Positions rise; on several axes, where an image's tokens share some, those of the text do, and all are kept."""
    positions = segment.positions[:, 0]
    if len(positions) == 1 or (renumbers and segment is not first):
        assert bool((positions.diff(dim=-1) > 0).all())
        return
    assert bool((positions[:, ~segment.is_visual[0]].diff(dim=-1) > 0).all())
    assert torch.equal(positions, first.positions[:, 0, segment.columns[0]])


def test_text_goes_through_every_layer_in_order_and_positions_rise(changing_engine, watched, requests):
    left_or_joined = 0
    for one in requests:
        seen = watched(changing_engine, one)
        segments = {segment.first_layer: segment for segment in seen.cache.segments}
        assert 0 in segments
        is_visual, behind = segments[0].is_visual[0], seen.layers[0][0][0]
        for layer, (inputs, outputs) in enumerate(seen.layers):
            text_before = behind[~is_visual]
            if layer in segments:
                assert_places(segments[layer], segments[0], renumbers=changing_engine.method.decoder.renumbers)
                left_or_joined += abs(int(is_visual.sum()) - int(segments[layer].is_visual[0].sum()))
                is_visual = segments[layer].is_visual[0]
            if layer == len(seen.layers) - 1 and changing_engine.model.ends_early:
                assert torch.equal(inputs[0], text_before[-1:])
                break
            assert torch.equal(inputs[0, ~is_visual], text_before)
            behind = outputs[0]
    assert left_or_joined > 0, "nothing left or joined, so this test has seen nothing"


class NoAttentionMatrix(TorchDispatchMode):
    """Fails when anything as large as a layer's whole attention weights is made."""

    def __init__(self, num_heads, lengths):
        super().__init__()
        self.num_heads, self.lengths = num_heads, lengths

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dim() >= 3:
                heads, *square = tensor.shape[-3:]
                if heads == self.num_heads and square[0] == square[1] and square[0] in self.lengths:
                    raise AssertionError(f"{func} made attention weights {list(tensor.shape)}")
        return made


def attention_lengths(seen):
    account = seen.answer.account
    return {visual + account.text_tokens for visual in account.visual_tokens_per_layer}


def test_the_kernel_stays_and_no_attention_matrix_is_made(engine, watched, requests):
    text_config = engine.model.language_model.config
    for one in requests[:4]:
        with NoAttentionMatrix(text_config.num_attention_heads, attention_lengths(watched(engine, one))):
            engine.answer([one])
    assert engine.model.language_model.config._attn_implementation == "sdpa"
    assert text_config._attn_implementation == "sdpa"


def test_an_attention_matrix_would_be_seen(engine_of, requests):
    engine = engine_of("fastv", {}, attn_implementation="eager")
    heads = engine.model.config.text_config.num_attention_heads
    lengths = attention_lengths(watch(engine, requests[1]))
    # Alone and again alone: the engine's second try fails too and names the document.
    with pytest.raises(Exception, match="made attention weights"), NoAttentionMatrix(heads, lengths):
        engine.answer([requests[1]])


def test_the_documentations_method_runs(engine_of, requests):
    page = (Path(__file__).parents[2] / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(from dataclasses import dataclass\n.*?)```", page, re.DOTALL).group(1)
    exec(compile(example, "add-a-method.md", "exec"), {"__name__": "documentation"})
    try:
        account = engine_of("longest", {"layer": 1}).answer([requests[2]])[0].account
    finally:
        registry._registered.pop("longest")
    # 7 tiles of 16 tokens; half of them, and the one in the middle
    assert account.visual_tokens_per_layer[0] == 112
    assert account.visual_tokens_per_layer[1] in (56, 57)
