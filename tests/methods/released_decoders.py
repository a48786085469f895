"""Golden data of methods in the decoder: a small Llama, prompts, and what the released code computed from them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.methods import registry

# A rewrite in float32 differs by 5e-5; the smallest of the likely mistakes moves logits by 0.2.
LOGITS = {"atol": 2e-4, "rtol": 0}


class Watched:
    """A part whose states and answers are kept."""

    def __init__(self, part):
        self.part, self.renumbers, self.seen = part, part.renumbers, []
        self.layers, self.prepare, self.project = part.layers, part.prepare, part.project

    def next_tokens(self, state):
        self.seen.append((state, self.part.next_tokens(state)))
        return self.seen[-1][1]


class Released:
    """The data of one method, under tests/golden."""

    def __init__(self, method):
        self.method = method
        self.folder = Path(__file__).parents[1] / "golden" / method
        self.expected = json.loads((self.folder / "expected.json").read_text())
        self.meta = json.loads((self.folder / "meta.json").read_text())
        self.inputs = load_file(self.folder / "inputs.safetensors")
        self.tensors = load_file(self.folder / "expected.safetensors")
        self.prompts = list(self.meta["prompts"])

    def model(self, attention="sdpa"):
        return AutoModelForCausalLM.from_pretrained(self.folder / "checkpoint", attn_implementation=attention).eval()

    def use(self, model, arguments):
        """The model with the method, watched."""
        part = Watched(registry.build(self.method, arguments).decoder)
        model.model = CompressingDecoder(getattr(model.model, "base", model.model), part)
        return part

    def prompt(self, name):
        """Embeddings [1, N, D] and an empty cache's prompt."""
        ids = self.inputs[f"{name}.input_ids"]
        return self.inputs[f"{name}.inputs_embeds"][None], Prompt(ids[None] < 0, (f"golden/test/{name}",))

    def prefill(self, model, name):
        """Logits [N', vocabulary] and the filled cache."""
        embeddings, prompt = self.prompt(name)
        cache = PromptCache(model.config, prompt)
        return model(inputs_embeds=embeddings, past_key_values=cache).logits[0], cache

    def check_prefill(self, model, name, case):
        """One case's remaining tokens, cache lengths and logits, and those of greedy decoding behind it."""
        golden = self.expected[name][case]
        logits, cache = self.prefill(model, name)
        torch.testing.assert_close(logits, self.tensors[f"{name}.{case}.prefill_logits"], **LOGITS)
        assert cache.segments[-1].columns[0].tolist() == golden["kept_positions"]
        lengths = [layer.get_seq_length() for layer in cache.layers]
        assert lengths == golden["cache_lengths_after_prefill"]
        text = self.meta["prompts"][name]["length"] - self.meta["prompts"][name]["visual_length"]
        assert list(cache.visual_tokens_per_layer(0)) == [length - text for length in lengths]
        counts = cache.visual_tokens_per_layer(0)
        assert sum(counts) / len(counts) / counts[0] == golden["mean_visual_share"]
        assert first_positions(cache) == self._first_positions(golden)
        steps = [logits[-1]]
        for token in golden["greedy_tokens"]:
            assert int(steps[-1].argmax()) == token
            steps.append(model(input_ids=torch.tensor([[token]]), past_key_values=cache).logits[0, -1])
        torch.testing.assert_close(torch.stack(steps[:-1]), self.tensors[f"{name}.{case}.step_logits"], **LOGITS)
        assert [layer.get_seq_length() for layer in cache.layers] == golden["cache_lengths_at_end"]

    def _first_positions(self, golden):
        if "first_decode_position_per_layer" in golden:
            return golden["first_decode_position_per_layer"]
        return [golden["first_decode_position"]] * len(golden["cache_lengths_at_end"])

    def check_batch(self, model, case, beams=1):
        """Prompts of different lengths, left-padded, in one batch: the tokens that each gives alone."""
        names = [name for name in self.prompts if case in self.expected[name]]
        rows = [self.inputs[f"{name}.inputs_embeds"] for name in names]
        longest = max(map(len, rows)) + 3
        embeddings = torch.zeros(len(rows), longest, rows[0].shape[1])
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        is_visual = torch.zeros(len(rows), longest, dtype=torch.bool)
        for number, (name, row) in enumerate(zip(names, rows, strict=True)):
            embeddings[number, longest - len(row) :] = row
            mask[number, longest - len(row) :] = 1
            is_visual[number, longest - len(row) :] = self.inputs[f"{name}.input_ids"] < 0
        cache = PromptCache(model.config, Prompt(is_visual, tuple(names)))
        tokens = model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=self.meta["new_tokens"],
            do_sample=False,
            num_beams=beams,
            eos_token_id=None,
            pad_token_id=0,
        )
        for row, name in enumerate(names):
            golden, segment = self.expected[name][case], cache.segments[-1]
            if beams == 1:
                assert tokens[row].tolist() == golden["greedy_tokens"]
            kept = segment.columns[row * beams, segment.starts[row * beams] :] - (longest - len(rows[row]))
            assert kept.tolist() == golden["kept_positions"]


def first_positions(cache):
    """Position of the first new token in each layer, as the rotary embedding gets it."""
    starts = {segment.first_layer: int(segment.positions[0, 0, -1]) + 1 for segment in cache.segments}
    return [starts[max(first for first in starts if first <= layer)] for layer in range(len(cache.layers))]
