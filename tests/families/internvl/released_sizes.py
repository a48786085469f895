"""The eight sizes of InternVL3.5, as their public configurations and model cards have them.

Source: the vision encoders are InternViT-300M-448px-V2_5 and InternViT-6B-448px-V2_5, the decoders Qwen3-0.6B, 1.7B,
4B, 8B, 14B, 30B-A3B, 32B and 235B-A22B, each by its own config.json; the model cards of OpenGVLab/InternVL3_5-* give
the billions of weights. The cards' numbers of the small decoders hold a head of its own (0.8 for 1B, where Qwen3-0.6B
with a tied head has 0.6), so no size ties head and embedding.
"""

from dataclasses import dataclass
from typing import Any

VOCABULARY, HEAD_DIM = 151936, 128
TILE = {"image_size": 448, "patch_size": 14}
SMALL_VISION = {
    **TILE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
}
LARGE_VISION = {
    **TILE,
    "hidden_size": 3200,
    "num_hidden_layers": 45,
    "num_attention_heads": 25,
    "intermediate_size": 12800,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a size is made of."""

    width: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    """Width inside an MLP; of an expert where there are any."""

    experts: int = 0
    vision: dict[str, Any]
    billions: float
    """Weights of the plain model, as the model card rounds them."""

    def released_config(self) -> dict[str, Any]:
        """The part of the released config.json that decides names and shapes."""
        kind = "qwen3_moe" if self.experts else "qwen3"
        decoder = {
            "model_type": kind,
            "architectures": ["Qwen3MoeForCausalLM" if self.experts else "Qwen3ForCausalLM"],
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": HEAD_DIM,
            "intermediate_size": self.inner,
            "vocab_size": VOCABULARY,
            "tie_word_embeddings": False,
        }
        if self.experts:
            experts = {"num_experts": self.experts, "moe_intermediate_size": self.inner, "num_experts_per_tok": 8}
            decoder |= experts | {"decoder_sparse_step": 1, "mlp_only_layers": []}
        return {
            "model_type": "internvl_chat",
            "llm_config": decoder,
            "vision_config": self.vision,
            "ps_version": "v2",
            "select_layer": -1,
        }


SMALL, LARGE = {"vision": SMALL_VISION}, {"vision": LARGE_VISION}
SIZES = {
    "1B": Size(width=1024, layers=28, heads=16, key_heads=8, inner=3072, billions=1.1, **SMALL),
    "2B": Size(width=2048, layers=28, heads=16, key_heads=8, inner=6144, billions=2.3, **SMALL),
    "4B": Size(width=2560, layers=36, heads=32, key_heads=8, inner=9728, billions=4.7, **SMALL),
    "8B": Size(width=4096, layers=36, heads=32, key_heads=8, inner=12288, billions=8.5, **SMALL),
    "14B": Size(width=5120, layers=40, heads=40, key_heads=8, inner=17408, billions=15.1, **SMALL),
    "30B-A3B": Size(width=2048, layers=48, heads=32, key_heads=4, inner=768, experts=128, billions=30.8, **SMALL),
    "38B": Size(width=5120, layers=64, heads=64, key_heads=8, inner=25600, billions=38.4, **LARGE),
    "241B-A28B": Size(width=4096, layers=94, heads=64, key_heads=4, inner=1536, experts=128, billions=240.7, **LARGE),
}
