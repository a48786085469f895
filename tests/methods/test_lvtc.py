"""LVTC is what the paper's algorithm 1 says, written down naively here: one request, one token after the other."""

import copy
import json
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, Qwen3Config
from transformers.models.internvl import InternVLVisionConfig

from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.errors import CheckpointError, ConfigError, DocumentError
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods import registry
from vico_eval.methods.lvtc import LVTC, LVTCConfig, LVTCSettings, expanded_source, settings_of, upsample

LAYERS, IMAGE, VOCABULARY = 6, 60, 64
LOW, HIGH = 4, 16  # visual tokens of a tile: 4 x 4 vision tokens, in squares of 2 and of 1
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    # Untrained weights of the usual size make tokens so alike that a wrong one hardly shows.
    "initializer_range": 0.3,
}
# `dynamic`: both stages of a long prompt are longer than the rotary table's own length. `between`: the second alone.
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
DECODERS = {
    "qwen3": lambda: Qwen3Config(**SIZES),
    "llama": lambda: LlamaConfig(**SIZES),
    "llama-dynamic": lambda: LlamaConfig(**SIZES, rope_parameters=DYNAMIC, max_position_embeddings=10),
    "llama-between": lambda: LlamaConfig(**SIZES, rope_parameters=DYNAMIC, max_position_embeddings=30),
}
DEFAULT = {"expand_before": 3, "first_insertion": 1, "insertion_interval": 1}
ALONE = {**DEFAULT, "num_low_resolution": 1}
SETTINGS = {
    "default": DEFAULT,
    "bilinear": {**DEFAULT, "upsample": "bilinear"},
    "from the first layer": {"expand_before": 5, "first_insertion": 0, "insertion_interval": 2},
    "no insertion": {**DEFAULT, "num_low_resolution": 1},
    "expanded at once": {**ALONE, "expand_before": 0},
}
# Each number is an image of so many tiles, with text around it.
PROMPTS = {"text only": [], "a tile": [1], "an image": [3], "two images": [2, 1]}
# A rewrite differs by 1e-5; the smallest of the mistakes tried (a stage's padding counted, a wrong tile) by 1e-1.
SAME = {"atol": 1e-4, "rtol": 1e-4}


def build(decoder="qwen3", settings=DEFAULT):
    torch.manual_seed(0)
    config = VicoInternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=(16, 16),
            patch_size=(4, 4),
        ),
        text_config=DECODERS[decoder](),
        image_token_id=IMAGE,
        parts={"lvtc": asdict(LVTCSettings(**settings))},
    )
    model = VicoInternVL(config).eval()
    for projector in (model.connector_high, model.lvtc):
        for parameter in projector.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    # Transformers' tower is all alike untrained.
    torch.nn.init.normal_(model.vision_tower.embeddings.position_embeddings)
    use_lvtc(model)
    return model


def facts(settings):
    """Of a checkpoint with such settings, before any module is made."""
    return replace(facts_of(build().config, "x"), parts={"lvtc": settings})


def use_lvtc(model):
    model.use_decoder_part(registry.build("lvtc").decoder)


def prompt(images, seed=0, behind=5):
    """Ids [N] and tiles [T, 3, 16, 16]: three tokens, the images with two tokens between them, more text."""
    generator = torch.Generator().manual_seed(seed)
    ids = [3, 4, 5]
    for tiles in images:
        ids += [IMAGE] * (LOW * tiles) + torch.randint(6, 50, (2,), generator=generator).tolist()
    ids += torch.randint(6, 50, (behind,), generator=generator).tolist()
    return torch.tensor(ids), torch.randn(sum(images), 3, 16, 16, generator=generator)


def batch(rows):
    """Left-padded ids and mask [batch, N], and all tiles."""
    longest = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, (ids, _) in enumerate(rows):
        input_ids[row, longest - len(ids) :] = ids
        mask[row, longest - len(ids) :] = 1
    return input_ids, mask, torch.cat([tiles for _, tiles in rows])


def coarser(place, mode):
    """Weights of the two coarse places on a line that the finer place of four sees, {coarse place: weight}."""
    if mode == "nearest":
        return {place // 2: 1.0}
    middle = min(max((place + 0.5) / 2 - 0.5, 0.0), 1.0)
    return {0: 1 - middle, 1: middle}


def naive_logits(model, ids, pixels):
    """Logits [N', V] of one request, by algorithm 1, with eager attention and masks written out."""
    settings = LVTCSettings(**model.config.parts["lvtc"])
    model = copy.deepcopy(model)
    model.use_decoder_part(None)
    decoder = model.language_model.model
    decoder.set_attn_implementation("eager")
    vit_tokens = model.encode_tiles(pixels) if len(pixels) else None
    tokens, tile, place = [], 0, 0  # (vector, tile or None, place in the tile)
    for token in ids.tolist():
        if token != IMAGE:
            tokens.append((decoder.embed_tokens.weight[token], None, None))
            continue
        tokens.append((model.connector_high(vit_tokens)[tile, place], tile, place))
        place += 1
        if place == LOW:
            tile, place = tile + 1, 0

    inserted = 0
    for index, layer in enumerate(decoder.layers):
        s, i, T = settings.first_insertion, settings.insertion_interval, settings.num_low_resolution
        if index == settings.expand_before and tile:
            high = model.lvtc.high_resolution(vit_tokens)
            longer = []
            for vector, of_tile, of_place in tokens:
                if of_tile is None:
                    longer.append((vector, None, None))
                elif of_place == 0:  # here stand all the new ones
                    coarse = {at: one for one, other, at in tokens if other == of_tile}
                    for row in range(4):
                        for column in range(4):
                            up = sum(
                                down * across * coarse[2 * r + c]
                                for r, down in coarser(row, settings.upsample).items()
                                for c, across in coarser(column, settings.upsample).items()
                            )
                            longer.append((up + high[of_tile, 4 * row + column], of_tile, 4 * row + column))
            tokens = longer
        elif s <= index < s + i * (T - 1) and (index - s) % i == 0 and tile:
            low = model.lvtc.low_resolution[inserted](vit_tokens)
            inserted += 1
            tokens = [(one if of is None else one + low[of, at], of, at) for one, of, at in tokens]
        length = len(tokens)
        rotary = type(decoder.rotary_emb)(model.config.text_config)(torch.zeros(()), torch.arange(length)[None])
        mask = torch.full((1, 1, length, length), float("-inf")).triu(1)
        hidden = torch.stack([vector for vector, _, _ in tokens])[None]
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        tokens = [(new, of, at) for new, (_, of, at) in zip(hidden[0], tokens, strict=True)]
    return model.language_model.lm_head(decoder.norm(torch.stack([vector for vector, _, _ in tokens])))


def generate(model, rows, **settings):
    input_ids, mask, pixels = batch(rows)
    vit_tokens = model.encode_tiles(pixels) if len(pixels) else torch.zeros(0, 1, 16)
    visual, counts = model.no_visual_tokens(), torch.zeros(0, dtype=torch.long)
    if len(pixels):
        visual, counts = model.visual_tokens(vit_tokens, torch.zeros(len(pixels), dtype=torch.bool))
    cache = model.prompt_cache(input_ids, [f"test/{row}" for row in range(len(rows))], vit_tokens, counts)
    settings = {"max_new_tokens": 5, "do_sample": False} | settings
    return model.generate(input_ids, visual, mask, past_key_values=cache, **settings), cache


def lengths(images, text):
    """Tokens per layer of the default settings."""
    tiles = sum(images)
    return [LOW * tiles + text] * 3 + [HIGH * tiles + text] * (LAYERS - 3)


@pytest.mark.parametrize("images", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("decoder", DECODERS)
@torch.inference_mode()
def test_a_request_goes_through_the_layers_as_algorithm_1_says(decoder, settings, images):
    model = build(decoder, settings)
    ids, pixels = prompt(images)
    logits = model(input_ids=ids[None], pixel_values=pixels).logits[0]
    torch.testing.assert_close(logits, naive_logits(model, ids, pixels), **SAME)


@pytest.mark.parametrize("decoder", ["qwen3", "llama"])
@torch.inference_mode()
def test_cached_decoding_is_recomputing_everything_and_layers_cache_what_they_saw(decoder):
    model = build(decoder)
    ids, pixels = prompt([2, 1])
    generated, cache = generate(model, [(ids, pixels)])
    for step, token in enumerate(generated[0].tolist()):
        expected = naive_logits(model, torch.cat([ids, generated[0, :step]]), pixels)[-1]
        assert int(expected.argmax()) == token
    # The last generated token is never fed.
    text = len(ids) - 3 * LOW
    assert [layer.get_seq_length() for layer in cache.layers] == [length + 4 for length in lengths([2, 1], text)]
    assert cache.visual_tokens_per_layer(0) == (12, 12, 12, 48, 48, 48)
    # Insertions move nothing: two stages, each with positions of its own.
    stages = {segment.first_layer: segment.positions[0, 0].tolist() for segment in cache.segments}
    assert stages == {0: list(range(12 + text)), 3: list(range(48 + text))}


@torch.inference_mode()
def test_a_dynamic_table_forgets_longer_prompts():
    model = build("llama-dynamic")
    for images in ([5], [3], [4, 1]):
        ids, pixels = prompt(images)
        logits = model(input_ids=ids[None], pixel_values=pixels).logits[0]
        torch.testing.assert_close(logits, naive_logits(model, ids, pixels), **SAME)


@pytest.mark.parametrize("decoder", ["qwen3", "llama"])
@torch.inference_mode()
def test_steps_of_decoding_have_the_logits_of_one_longer_forward(decoder):
    model = build(decoder)
    rows = [prompt([2, 1], seed=1), prompt([1], seed=2), prompt([], seed=3)]
    input_ids, mask, pixels = batch(rows)
    vit_tokens = model.encode_tiles(pixels)
    visual, counts = model.visual_tokens(vit_tokens, torch.zeros(len(pixels), dtype=torch.bool))
    cache = model.prompt_cache(input_ids, ["a", "b", "c"], vit_tokens, counts)
    answer = torch.tensor([[7, 8, 9]] * 3)
    language = model.language_model
    embeddings = model.embed(input_ids, visual)
    steps = [language(inputs_embeds=embeddings, attention_mask=mask, past_key_values=cache).logits[:, -1]]
    steps += [language(input_ids=answer[:, n : n + 1], past_key_values=cache).logits[:, -1] for n in range(3)]
    whole = language(
        inputs_embeds=torch.cat([embeddings, language.get_input_embeddings()(answer)], dim=1),
        attention_mask=torch.cat([mask, torch.ones_like(answer)], dim=1),
        prompt=model.prompt(input_ids, ["a", "b", "c"], vit_tokens, counts),
        use_cache=False,
    )
    torch.testing.assert_close(torch.stack(steps, dim=1), whole.logits[:, -4:], **SAME)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
@pytest.mark.parametrize("decoder", ["qwen3", "llama"])
@torch.inference_mode()
def test_rows_of_a_batch_grow_by_different_numbers_of_tokens(decoder, settings):
    model = build(decoder)
    rows = [prompt(images, seed, behind) for seed, (images, behind) in enumerate([([3], 4), ([], 9), ([1, 2], 1)])]
    together, cache = generate(model, rows, **settings)
    returned = settings.get("num_return_sequences", 1)
    for number, row in enumerate(rows):
        alone, own = generate(model, [row], **settings)
        assert together[number * returned : (number + 1) * returned].tolist() == alone.tolist()
        assert cache.visual_tokens_per_layer(number) == own.visual_tokens_per_layer(0)
    input_ids, mask, pixels = batch(rows)
    logits = model(input_ids=input_ids, pixel_values=pixels, attention_mask=mask).logits
    for number, (ids, tiles) in enumerate(rows):
        expected = naive_logits(model, ids, tiles)
        torch.testing.assert_close(logits[number, -len(expected) :], expected, **SAME)


@torch.inference_mode()
def test_with_nothing_to_add_it_is_the_plain_decoder():
    ids, pixels = prompt([2, 1])
    # As many tokens after the expansion as before, and a projection of zeros.
    same_grid = build(settings={**ALONE, "high_block": 2})
    same_grid.lvtc.zero_outputs()
    never = build(settings=ALONE)
    # A checkpoint's may not say so, since its projector would be left out.
    late = {**never.config.parts["lvtc"], "expand_before": LAYERS}
    part = LVTC(LVTCConfig(), replace(never.facts, num_layers=LAYERS + 1, parts={"lvtc": late}), never.lvtc)
    never.language_model.model = CompressingDecoder(never.language_model.model.base, part)
    for model in (same_grid, never):
        logits = model(input_ids=ids[None], pixel_values=pixels).logits
        model.use_decoder_part(None)
        assert torch.equal(logits, model(input_ids=ids[None], pixel_values=pixels).logits)


@torch.inference_mode()
def test_expanded_before_the_first_layer_it_is_the_plain_decoder_on_upsampled_tokens():
    model = build(settings=SETTINGS["expanded at once"])
    ids, pixels = prompt([2, 1])
    logits = model(input_ids=ids[None], pixel_values=pixels).logits
    vit_tokens = model.encode_tiles(pixels)
    # Each of the 2 x 2 tokens on 2 x 2 places.
    grid = model.connector_high(vit_tokens).unflatten(1, (2, 2)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    visual = grid.flatten(1, 2) + model.lvtc.high_resolution(vit_tokens)
    longer = ids.repeat_interleave(torch.where(ids == IMAGE, HIGH // LOW, 1))
    model.use_decoder_part(None)
    embeddings = model.embed(longer[None], visual.flatten(0, 1))
    torch.testing.assert_close(logits, model.language_model(inputs_embeds=embeddings).logits, **SAME)


@torch.inference_mode()
def test_projections_are_made_when_their_layer_is_reached_for_all_tiles_at_once():
    model = build()
    events = []

    def note(name):
        return lambda module, args, output: events.append((name, len(args[0])))

    for number, layer in enumerate(model.language_model.model.layers):
        layer.register_forward_hook(note(f"layer {number}"))
    for number, projector in enumerate(model.lvtc.low_resolution):
        projector.register_forward_hook(note(f"low {number}"))
    model.lvtc.high_resolution.register_forward_hook(note("high"))
    generate(model, [prompt([3]), prompt([2, 1])], max_new_tokens=2)
    prefill = [("layer 0", 2), ("low 0", 6), ("layer 1", 2), ("low 1", 6), ("layer 2", 2), ("high", 6)]
    assert events[: len(prefill)] == prefill
    # Decoding a token adds nothing.
    assert {name for name, _ in events[len(prefill) :]} == {f"layer {number}" for number in range(LAYERS)}


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_keeps_a_constant_tile_and_mixes_no_tiles(mode):
    tokens = torch.stack([torch.full((4, 3), 2.0), torch.full((4, 3), -1.0)])
    assert torch.equal(upsample(tokens, 16, mode), tokens.repeat(1, 4, 1))
    assert upsample(tokens.bfloat16(), 16, mode).dtype == torch.bfloat16


def test_upsampling_goes_row_by_row():
    tokens = torch.tensor([[0.0, 4.0, 8.0, 12.0]])[..., None]  # 0 4 above 8 12
    nearest = [[0, 0, 4, 4], [0, 0, 4, 4], [8, 8, 12, 12], [8, 8, 12, 12]]
    assert upsample(tokens, 16, "nearest").view(4, 4).tolist() == nearest
    # Corners not aligned: the finer places lie at -1/4, 1/4, 3/4 and 5/4 of the coarse ones.
    bilinear = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    assert upsample(tokens, 16, "bilinear").view(4, 4).tolist() == bilinear


def test_an_expansion_leaves_text_in_order_around_every_tile():
    # text, a tile, a tile, text, a tile: two tokens each become three
    is_visual = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1]).bool()
    assert expanded_source(is_visual, 2, 3).tolist() == [0, *[-1] * 6, 5, *[-1] * 3]


@pytest.mark.parametrize(
    ("num_layers", "expected"), [(24, (17, (6, 12))), (32, (23, (8, 16))), (8, (5, (2, 4))), (36, (26, (9, 18)))]
)
def test_the_defaults_are_the_papers_three_quarters_and_our_quarters(num_layers, expected):
    settings = LVTCSettings.defaults(num_layers)
    assert (settings.expand_before, settings.insertions) == expected
    # 480 and 472 visual tokens a tile and layer: (17 * 256 + 7 * 1024) / 24 and (23 * 256 + 9 * 1024) / 32
    mean = (settings.expand_before * 256 + (num_layers - settings.expand_before) * 1024) / num_layers
    assert {24: 480, 32: 472}.get(num_layers, mean) == mean


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expand_before": 2}, r"before layers 1, 2 and the expansion before layer 2; expected every insertion before"),
        ({"expand_before": 1}, "insertions before layers 1, 2 and the expansion before layer 1"),
        ({"expand_before": LAYERS}, "expand_before=6, but the decoder has 6 layers; expected 0 to 5"),
        ({"expand_before": -1}, "expand_before=-1; expected an integer of at least 0"),
        ({"insertion_interval": 0}, "insertion_interval=0; expected an integer of at least 1"),
        ({"num_low_resolution": 0}, "num_low_resolution=0"),
        ({"high_block": 0}, "high_block=0"),
        ({"high_block": 1.5}, "high_block=1.5"),
        ({"high_block": 3}, "4 x 4 vision tokens from squares of 2 .* to squares of 3"),
        ({"high_block": 4}, "from squares of 2 .* to squares of 4"),
        ({"upsample": "cubic"}, "upsample='cubic'; expected nearest or bilinear"),
    ],
)
def test_settings_that_no_model_can_run_are_refused(settings, message):
    with pytest.raises(CheckpointError, match=message):
        settings_of(facts({**DEFAULT, **settings}))


def test_a_grid_that_squares_do_not_divide_is_refused():
    # 5 x 5 vision tokens: the connector drops the last row and column, and upsampling could not bring them back.
    vision = InternVLVisionConfig(image_size=(20, 20), patch_size=(4, 4))
    config = VicoInternVLConfig(vision_config=vision, text_config=DECODERS["qwen3"](), parts={"lvtc": DEFAULT})
    with pytest.raises(CheckpointError, match="5 x 5 vision tokens from squares of 2"):
        settings_of(facts_of(config, "odd"))


def test_four_layers_are_too_few_for_the_defaults_and_say_so():
    with pytest.raises(ConfigError, match=r"layers 1, 2 and the expansion before layer 2.*Lower num_low_resolution"):
        LVTCSettings.defaults(4)
    assert LVTCSettings.defaults(4, num_low_resolution=2).insertions == (1,)


def test_zero_outputs_are_asked_of_internvls_own_projector():
    model = build()
    model.lvtc.low_resolution[0] = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="a projection of Linear can't start at zero"):
        model.lvtc.zero_outputs()


@pytest.fixture
def altered(untrained, tmp_path):
    """Writes the LVTC checkpoint again with `lvtc` settings changed and weights left out."""

    def write(settings=None, leave_out=()):
        folder = untrained / "lvtc"
        for file in folder.glob("tokenizer*"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        values = json.loads((folder / "config.json").read_text())
        values["parts"]["lvtc"] |= settings or {}
        (tmp_path / "config.json").write_text(json.dumps(values))
        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if name not in leave_out}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        return str(tmp_path)

    return write


def opened(pretrained, method="lvtc"):
    return open_engine({"pretrained": pretrained, "method": method, "device": "cpu"}, show_progress=False).engine


def test_a_checkpoint_comes_back_as_it_was_saved(untrained, tmp_path):
    model = opened(str(untrained / "lvtc")).model
    model.save_pretrained(tmp_path)
    before, after = load_file(untrained / "lvtc" / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].float(), after[name]) for name in before)
    assert {name for name in after if name.startswith("lvtc.")} == {
        f"lvtc.{projector}.{layer}.{kind}"
        for projector in ("low_resolution.0", "high_resolution")
        for layer in ("norm", "linear_1", "linear_2")
        for kind in ("weight", "bias")
    }
    settings = json.loads((tmp_path / "config.json").read_text())["parts"]["lvtc"]
    assert settings == json.loads((untrained / "lvtc" / "config.json").read_text())["parts"]["lvtc"]
    assert settings["upsample"] == "nearest"


def test_missing_weights_are_named(altered):
    names = ["lvtc.high_resolution.linear_2.weight", "lvtc.low_resolution.0.norm.bias"]
    with pytest.raises(CheckpointError, match=f"missing: {names[0]}, {names[1]}"):
        opened(altered(leave_out=names))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expand_before": 4}, "config.json of .* can't be used: lvtc got expand_before=4.*has 4 layers"),
        ({"num_low_resolution": 3}, "expected every insertion before the expansion"),
        ({"expand_at": 3}, "config.json of .* can't be used: .*expand_at"),
    ],
)
def test_a_checkpoint_with_impossible_settings_is_refused(altered, settings, message):
    with pytest.raises(CheckpointError, match=message):
        opened(altered(settings))


@pytest.mark.parametrize("method", ["vanilla", "fastv", "single_tile"])
def test_a_method_that_leaves_lvtc_out_is_refused_on_its_checkpoint(untrained, method):
    with pytest.raises(CheckpointError, match=f"trained with lvtc, and method '{method}' leaves it out.*method=lvtc"):
        opened(str(untrained / "lvtc"), method)


def test_a_checkpoint_without_it_is_named(untrained):
    with pytest.raises(CheckpointError, match=r"has no LVTC projectors .*method 'lvtc' needs them"):
        opened(str(untrained / "vico"))


@pytest.mark.parametrize("connector", ["vico", "pool", "random", "all_compress", "image_vir"])
def test_no_connector_part_may_shorten_its_tiles(connector):
    arguments = {"ratio": 0.5} if connector == "random" else {}
    with pytest.raises(ConfigError, match="needs every tile with all its visual tokens"):
        registry.build(f"{connector}+lvtc", arguments)


def test_tiling_parts_and_a_connector_part_that_compresses_nothing_combine():
    built = registry.build("single_tile+vanilla+lvtc")
    assert [part.place for part in built.parts] == ["resolution", "connector", "decoder"]


def test_a_prompt_that_outgrows_the_decoders_positions_is_named(untrained):
    engine = opened(str(untrained / "lvtc"))
    picture = Image.new("RGB", (4 * 56, 56))
    settings = GenerationSettings(max_new_tokens=1)
    one = Request("a/b/0", (Message("user", (ImageInput(picture), Text("?"))),), generation=settings)
    account = engine.answer([one])[0].account
    # 4 tiles and the thumbnail: 16 tokens each, 64 from layer 2 on
    assert account.visual_tokens_per_layer == (80, 80, 320, 320)
    longest = account.text_tokens + 320
    engine.model.config.text_config.max_position_embeddings = longest
    engine.answer([one])
    engine.model.config.text_config.max_position_embeddings = longest - 1
    with pytest.raises(DocumentError, match=f"a/b/0 .*its prompt has {longest} tokens and the decoder {longest - 1}"):
        engine.answer([one])


@torch.inference_mode()
def test_a_prompt_without_its_vision_tokens_is_named():
    model = build()
    ids, pixels = prompt([1])
    embeddings = model.embed(ids[None], model.connector_high(model.encode_tiles(pixels))[0])
    with pytest.raises(RuntimeError, match="got no vision tokens of test/0"):
        model.language_model(inputs_embeds=embeddings, prompt=model.prompt(ids[None], ["test/0"]))
    described = model.prompt(ids[None], [""], model.encode_tiles(pixels.repeat(2, 1, 1, 1)), torch.tensor([2, 2]))
    with pytest.raises(RuntimeError, match="every tile at full length"):
        model.language_model(inputs_embeds=embeddings, prompt=described)
