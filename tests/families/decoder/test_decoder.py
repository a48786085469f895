"""A decoder that loses tokens between its layers, on every architecture that InternVL comes with."""

from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vico_eval.errors import CheckpointError
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.methods.interface import NextTokens

LAYERS, HEADS, VOCABULARY = 5, 4, 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    # Untrained weights of the usual size make tokens so alike that a wrong one hardly shows.
    "initializer_range": 0.3,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DECODERS = {"qwen3": {}, "qwen3_moe": EXPERTS, "qwen2": {}, "llama": {}}
SAME = {"atol": 1e-5, "rtol": 1e-4}
GREEDY = {"max_new_tokens": 5, "do_sample": False}


@dataclass
class Drop:
    """Before `acting` layers, keeps the visual tokens with even numbers; where it renumbers, the others' mean joins."""

    acting: tuple[int, ...] = (2, 4)
    renumbers: bool = False
    states: list | None = None

    def layers(self, num_layers):
        return set(self.acting)

    def prepare(self, request):
        return request.key

    def next_tokens(self, state):
        if self.states is not None:
            self.states.append(state)
        visual = state.is_visual.nonzero()[:, 0]
        stays = ~state.is_visual
        stays[visual[::2]] = True
        keep = stays.nonzero()[:, 0]
        if not self.renumbers:
            return NextTokens(keep)
        source = torch.cat([keep[keep <= visual[-1]], torch.tensor([-1]), keep[keep > visual[-1]]])
        return NextTokens(source, state.hidden[~stays].mean(dim=0, keepdim=True))


def build(name, attention="sdpa"):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name](**SIZES, **DECODERS[name])
    config._attn_implementation = attention
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    return build(request.param)


def use(model, part):
    model.model = CompressingDecoder(getattr(model.model, "base", model.model), part)
    return model


def prompts(*lengths):
    """Left-padded ids [batch, N], mask and description; positions 3.. of every prompt but its last four are visual."""
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    is_visual = torch.zeros_like(ids, dtype=torch.bool)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(length)
        ids[row, longest - length :] = torch.randint(1, VOCABULARY, (length,), generator=generator)
        mask[row, longest - length :] = 1
        is_visual[row, longest - length + 3 : longest - 4] = True
    return ids, mask, Prompt(is_visual, tuple(f"task/test/{length}" for length in lengths))


def generate(model, lengths, **settings):
    ids, mask, prompt = prompts(*lengths)
    cache = PromptCache(model.config, prompt)
    embeddings = model.get_input_embeddings()(ids)
    tokens = model.generate(inputs_embeds=embeddings, attention_mask=mask, past_key_values=cache, **settings)
    return tokens, cache


@pytest.mark.parametrize("acting", [(), (LAYERS,)])
@torch.inference_mode()
def test_where_nothing_leaves_nothing_changes_by_a_bit(model, acting):
    ids, mask, prompt = prompts(14, 20)
    plain = getattr(model.model, "base", model.model)
    model.model = plain
    expected = model(input_ids=ids, attention_mask=mask).logits
    expected_tokens = model.generate(ids, attention_mask=mask, **GREEDY)[:, ids.shape[1] :]
    use(model, Drop(acting))
    assert torch.equal(model(input_ids=ids, attention_mask=mask, prompt=prompt).logits, expected)
    assert torch.equal(generate(model, (14, 20), **GREEDY)[0], expected_tokens)


def test_weights_keep_their_names_and_the_plain_decoder_comes_back(model):
    plain = getattr(model.model, "base", model.model)
    model.model = plain
    names = list(model.state_dict())
    assert list(use(model, Drop()).state_dict()) == names
    assert model.model.base is plain


@torch.inference_mode()
def test_attention_rows_are_the_layers_own(model):
    ids, mask, prompt = prompts(20, 13)
    part = Drop((3,), states=[])
    use(model, part)(input_ids=ids, attention_mask=mask, prompt=prompt)
    model.model = model.model.base
    model.set_attn_implementation("eager")
    weights = model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    for row, state in enumerate(part.states):
        start = ids.shape[1] - len(state.is_visual)
        queries = torch.tensor([4, len(state.is_visual) - 1])
        torch.testing.assert_close(state.attention(queries), weights[2][row, :, start + queries, start:], **SAME)
        torch.testing.assert_close(state.next_attention(queries), weights[3][row, :, start + queries, start:], **SAME)
        assert state.prepared == state.key == prompt.keys[row]


class DropThenLook(Drop):
    """Drops before layer 2 and only looks before layer 3."""

    def next_tokens(self, state):
        asked = super().next_tokens(state)
        return asked if state.layer == 2 else None


@pytest.mark.parametrize("renumbers", [False, True])
@torch.inference_mode()
def test_the_attention_to_come_is_the_layers_own_where_the_rotary_base_depends_on_the_length(renumbers):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](**SIZES, rope_parameters=rope, max_position_embeddings=8)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    part = DropThenLook((2, 3), renumbers, states=[])
    weights = []
    model.model.layers[3].self_attn.register_forward_hook(lambda *call: weights.append(call[-1][1]))
    ids, mask, prompt = prompts(22, 13)
    use(model, part)(input_ids=ids, attention_mask=mask, prompt=prompt)
    looked = [state for state in part.states if state.layer == 3]
    assert len(looked) == 2
    for row, state in enumerate(looked):
        rows = torch.arange(len(state.is_visual))
        start = weights[0].shape[-1] - len(rows)
        torch.testing.assert_close(state.next_attention(rows), weights[0][row, :, start:, start:], **SAME)


@torch.inference_mode()
def test_the_previous_layers_keys_and_the_final_norm_are_the_models(model):
    ids, mask, prompt = prompts(20, 13)
    part = Drop((3,), states=[])
    use(model, part)(input_ids=ids, attention_mask=mask, prompt=prompt)
    model.model = model.model.base
    plain = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    for row, state in enumerate(part.states):
        start = ids.shape[1] - len(state.is_visual)
        keys = plain.past_key_values.layers[2].keys[row, :, start:]
        torch.testing.assert_close(state.previous_keys, keys, **SAME)
        normed = model.model.norm(plain.hidden_states[3][row, start:])
        torch.testing.assert_close(state.final_norm(state.hidden), normed, **SAME)


@torch.inference_mode()
def test_before_the_first_layer_nothing_has_attended_and_a_part_can_ask_what_would(model):
    ids, mask, prompt = prompts(20)
    part = Drop((0,), states=[])
    use(model, part)(input_ids=ids, attention_mask=mask, prompt=prompt)
    (state,) = part.states
    last = torch.tensor([len(state.is_visual) - 1])
    torch.testing.assert_close(state.next_attention(last).sum(dim=-1), torch.ones(HEADS, 1))
    for ask in (lambda: state.attention(last), lambda: state.previous_keys):
        with pytest.raises(RuntimeError, match="before layer 0"):
            ask()


@pytest.mark.parametrize("renumbers", [False, True])
@torch.inference_mode()
def test_rows_of_a_batch_lose_different_numbers_of_tokens(model, renumbers):
    use(model, Drop(renumbers=renumbers))
    lengths = (22, 9, 15)
    together, cache = generate(model, lengths, **GREEDY)
    for row, length in enumerate(lengths):
        alone, own = generate(model, (length,), **GREEDY)
        assert together[row].tolist() == alone[0].tolist()
        assert cache.visual_tokens_per_layer(row) == own.visual_tokens_per_layer(0)
        # 7 text tokens and the last generated token's place is never filled
        real = [layer.get_seq_length() for layer in own.layers]
        assert real == [count + 7 + GREEDY["max_new_tokens"] - 1 for count in own.visual_tokens_per_layer(0)]
    # 15 visual tokens; 8 from layer 2 on (and a merged one); 4 from layer 4 on (5 of 9, and one)
    assert cache.visual_tokens_per_layer(0) == ((15, 15, 9, 9, 6) if renumbers else (15, 15, 8, 8, 4))


@pytest.mark.parametrize("renumbers", [False, True])
@torch.inference_mode()
def test_cached_decoding_is_an_uncached_forward_over_prompt_and_answer(model, renumbers):
    use(model, Drop(renumbers=renumbers))
    lengths = (22, 9)
    ids, mask, prompt = prompts(*lengths)
    cache = PromptCache(model.config, prompt)
    answer = torch.tensor([[5, 6, 7], [8, 9, 10]])
    steps = [model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits[:, -1]]
    steps += [model(input_ids=answer[:, step : step + 1], past_key_values=cache).logits[:, -1] for step in range(3)]
    output = model(
        input_ids=torch.cat([ids, answer], dim=1),
        attention_mask=torch.cat([mask, torch.ones_like(answer)], dim=1),
        prompt=prompt,
        use_cache=False,
    )
    assert output.past_key_values is None
    torch.testing.assert_close(torch.stack(steps, dim=1), output.logits[:, -4:], **SAME)


@pytest.mark.parametrize("renumbers", [False, True])
@torch.inference_mode()
def test_several_new_tokens_at_once_are_the_same_as_one_by_one(model, renumbers):
    use(model, Drop(renumbers=renumbers))
    ids, mask, prompt = prompts(22, 9)
    answer = torch.tensor([[5, 6, 7], [8, 9, 10]])
    one, many = PromptCache(model.config, prompt), PromptCache(model.config, prompt)
    for cache in (one, many):
        model(input_ids=ids, attention_mask=mask, past_key_values=cache)
    steps = [model(input_ids=answer[:, step : step + 1], past_key_values=one).logits[:, 0] for step in range(3)]
    torch.testing.assert_close(torch.stack(steps, dim=1), model(input_ids=answer, past_key_values=many).logits, **SAME)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "do_sample": False, "max_new_tokens": 5},
        {"num_beams": 3, "do_sample": False, "max_new_tokens": 5, "num_return_sequences": 2},
    ],
)
@torch.inference_mode()
def test_beams_in_a_batch_are_the_beams_of_one_request(model, settings):
    use(model, Drop(renumbers=True))
    returned = settings.get("num_return_sequences", 1)
    together, cache = generate(model, (22, 9), **settings)
    for row, length in enumerate((22, 9)):
        alone, own = generate(model, (length,), **settings)
        assert together[row * returned : (row + 1) * returned].tolist() == alone.tolist()
        assert cache.visual_tokens_per_layer(row) == own.visual_tokens_per_layer(0)


@torch.inference_mode()
def test_beams_find_no_less_likely_answers_than_an_exhaustive_search(model):
    # As many beams as there are tokens: two steps of beam search then look at every answer of two tokens.
    use(model, Drop(renumbers=True))
    best, _ = generate(model, (15,), num_beams=VOCABULARY, max_new_tokens=2, do_sample=False)
    ids, _, prompt = prompts(15)
    first = model(input_ids=ids, prompt=prompt, use_cache=False).logits[0, -1].log_softmax(-1)
    pairs = torch.cat([ids.expand(VOCABULARY, -1), torch.arange(VOCABULARY)[:, None]], dim=1)
    many = Prompt(prompt.is_visual.expand(VOCABULARY, -1), prompt.keys * VOCABULARY)
    second = model(input_ids=pairs, prompt=many, use_cache=False).logits[:, -1].log_softmax(-1)
    total = first[:, None] + second
    assert best[0].tolist() == [int(total.argmax()) // VOCABULARY, int(total.argmax()) % VOCABULARY]


@torch.inference_mode()
def test_sampling_repeats_itself(model):
    use(model, Drop())
    settings = {"do_sample": True, "max_new_tokens": 5, "temperature": 2.0}
    torch.manual_seed(3)
    once, _ = generate(model, (22, 9), **settings)
    torch.manual_seed(3)
    assert torch.equal(generate(model, (22, 9), **settings)[0], once)


@torch.inference_mode()
def test_every_attention_implementation_gives_the_same():
    logits = []
    for attention in ("sdpa", "eager"):
        model = use(build("qwen3", attention), Drop(renumbers=True))
        ids, mask, prompt = prompts(22, 9)
        # Padding attends to nothing, which each implementation fills in its own way.
        logits.append(model(input_ids=ids, attention_mask=mask, prompt=prompt).logits[:, -6:])
        assert model.config._attn_implementation == attention
    torch.testing.assert_close(*logits, **SAME)


@pytest.mark.parametrize("renumbers", [False, True])
@torch.inference_mode()
def test_new_tokens_in_the_places_of_old_ones_move_nothing(model, renumbers):
    class Double(Drop):
        def next_tokens(self, state):
            source = torch.arange(len(state.hidden)).masked_fill(state.is_visual, -1)
            return NextTokens(source, 2 * state.hidden[state.is_visual])

    ids, mask, prompt = prompts(22, 9)
    # Padding in every row: packing would take it away.
    ids, mask, is_visual = (
        torch.cat([torch.zeros_like(one[:, :2]), one], dim=1) for one in (ids, mask, prompt.is_visual)
    )
    described = Prompt(is_visual, prompt.keys)
    cache = PromptCache(model.config, described)
    use(model, Double((0,), renumbers))
    logits = model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits
    assert len(cache.segments) == 1
    doubled = model.get_input_embeddings()(ids) * (1 + is_visual[..., None].long())
    model.model = model.model.base
    assert torch.equal(logits, model(inputs_embeds=doubled, attention_mask=mask).logits)


@pytest.mark.parametrize("renumbers", [False, True])
@torch.inference_mode()
def test_the_output_says_where_its_columns_stood(model, renumbers):
    class DropOfLongest(Drop):
        def next_tokens(self, state):
            return super().next_tokens(state) if state.key.endswith("14") else None

    ids, mask, prompt = prompts(14, 13)
    output = use(model, DropOfLongest((1,), renumbers)).model(input_ids=ids, attention_mask=mask, prompt=prompt)
    # 3 text tokens, 7 visual ones of which every second stays, a new one where there is one, and 4 text tokens
    first = [0, 1, 2, 3, 5, 7, 9, *([-1] if renumbers else []), 10, 11, 12, 13]
    second = list(range(1, 14))
    assert output.columns.tolist() == [[-1] * (13 - len(first)) + first, second]
    assert output.last_hidden_state.shape[1] == 13


@torch.inference_mode()
def test_before_the_first_layer_there_is_no_attention():
    class Looks(Drop):
        def next_tokens(self, state):
            state.attention(torch.tensor([0]))

    ids, mask, prompt = prompts(15)
    with pytest.raises(RuntimeError, match="attention weights before layer 0; expected layer 1 or later"):
        use(build("qwen3"), Looks((0,)))(input_ids=ids, attention_mask=mask, prompt=prompt)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda n: NextTokens(torch.arange(n).flip(0)), "dropped text of task/test/15, or reordered its tokens"),
        (lambda n: NextTokens(torch.arange(n).repeat_interleave(2)), "or reordered its tokens, before layer 2"),
        (lambda n: NextTokens(torch.tensor([*range(n), -1])), "reserved 1 slots .* but returned 0 new tokens"),
        (lambda n: NextTokens(torch.arange(n), torch.zeros(2, 32)), "reserved 0 slots .* but returned 2 new tokens"),
        (lambda n: NextTokens(torch.tensor([*range(n), -1]), torch.zeros(1, 32)), "only `renumbers` gives them"),
    ],
)
@torch.inference_mode()
def test_answers_that_make_no_sense_are_refused(asked, message):
    class Careless(Drop):
        def next_tokens(self, state):
            return asked(len(state.hidden))

    ids, mask, prompt = prompts(15)
    with pytest.raises(RuntimeError, match=message):
        use(build("qwen3"), Careless((2,)))(input_ids=ids, attention_mask=mask, prompt=prompt)


@torch.inference_mode()
def test_text_can_not_be_dropped():
    class Careless(Drop):
        def next_tokens(self, state):
            return NextTokens(state.is_visual.nonzero()[:, 0])

    ids, mask, prompt = prompts(15)
    with pytest.raises(RuntimeError, match="dropped text of task/test/15"):
        use(build("qwen3"), Careless())(input_ids=ids, attention_mask=mask, prompt=prompt)


@torch.inference_mode()
def test_misuse_is_named():
    model = use(build("qwen3"), Drop())
    ids, mask, prompt = prompts(15, 12)
    with pytest.raises(RuntimeError, match="needs to know the prompt"):
        model(input_ids=ids)
    with pytest.raises(RuntimeError, match="padding to the right"):
        model(input_ids=ids, attention_mask=mask.flip(1), prompt=prompt)
    with pytest.raises(RuntimeError, match=r"the prompts are \[2, 15\] and the input is \[2, 7\]"):
        model(input_ids=ids[:, :7], prompt=prompt)


def test_sliding_attention_is_refused():
    model = build("qwen2")
    model.model.config.layer_types = ["full_attention", "sliding_attention"] * 2 + ["full_attention"]
    with pytest.raises(CheckpointError, match="sliding attention"):
        use(model, Drop())


class Replace:
    """Before layer 2, even requests have their visual tokens replaced, each in its place; odd ones lose half."""

    renumbers = False

    def layers(self, num_layers):
        return {2}

    def prepare(self, request):
        return None

    def next_tokens(self, state):
        source = torch.arange(len(state.is_visual))
        if int(state.key.rsplit("/", 1)[1]) % 2 == 0:
            return NextTokens(source.masked_fill(state.is_visual, -1), state.hidden[state.is_visual] * 2)
        visual = state.is_visual.nonzero()[:, 0]
        stays = ~state.is_visual
        stays[visual[::2]] = True
        return NextTokens(source[stays])


@torch.inference_mode()
def test_tokens_replaced_in_their_places_keep_positions_beside_a_request_that_loses_some(model):
    logits = {}
    for lengths in ((20, 13), (20,), (13,)):
        ids, mask, prompt = prompts(*lengths)
        found = use(model, Replace())(input_ids=ids, attention_mask=mask, prompt=prompt).logits
        for row, length in enumerate(lengths):
            logits.setdefault(length, []).append(found[row, -4:])
    for together, alone in logits.values():
        torch.testing.assert_close(together, alone, **SAME)
