"""transformers' decoders in small, with random weights, and what they generate."""

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DECODERS = {
    "qwen3": {"head_dim": 16},
    "qwen2": {},
    "llama": {},
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


def config(name, **settings):
    return CONFIG_MAPPING[name](**SIZES, **DECODERS[name], **settings)


def decoder(name, **settings):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(name, **settings)).eval()


def padded_prompts():
    """Embeddings and attention mask: two of nine tokens and one of four, padded left."""
    torch.manual_seed(1)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, :5] = 0
    return torch.randn(3, 9, SIZES["hidden_size"]), mask


@torch.inference_mode()
def generate(model, embeddings, attention_mask, tokens=5, **settings):
    return model.generate(
        inputs_embeds=embeddings,
        attention_mask=attention_mask,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **settings,
    )
