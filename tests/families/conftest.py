"""Tiny random checkpoints in the layouts that InternVL is released in, made from transformers' own modules.

The names here are written down a second time, from the released weights to this package's modules and back, so that a
slip in `weight_names` can't hide in the tests.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, InternVLConfig, InternVLForConditionalGeneration
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.internvl import InternVLVisionConfig, InternVLVisionModel

IMAGE_TOKEN_ID = 60
WIDTH = 32

# What every decoder below shares, in the words of config.json. The scaling is that of InternVL 2.5 and 3: it changes
# nothing within max_position_embeddings and the last prompts here are longer.
DECODER = {
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DYNAMIC = {"rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}}
DECODERS = {
    "qwen2": DECODER | DYNAMIC | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "moe_config": None},
    "qwen2-tied": DECODER
    | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True, "rope_scaling": None},
    "qwen3": DECODER
    | {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "head_dim": 12,
        "rope_scaling": None,
        "ep_size": 1,
    },
    "qwen3_moe": DECODER
    | {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": 8,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 20,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "llama": DECODER | {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": False},
}
VISION = {
    "architectures": ["InternVisionModel"],
    "auto_map": {"AutoModel": "modeling_intern_vit.InternVisionModel"},
    "model_type": "intern_vit_6b",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "image_size": 56,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-6,
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 14,
    "initializer_factor": 0.1,
    "drop_path_rate": 0.1,
    "torch_dtype": "float32",
    "use_flash_attn": True,
}
VISIONS = {
    "300m": VISION | {"norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True},
    "6b": VISION | {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False},
}
HF_VISION = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("image_size", "patch_size", "norm_type"),
)


@dataclass
class Reference:
    """The modules a released checkpoint was made from, and where it lies."""

    folder: Path
    vision: nn.Module
    decoder: nn.Module
    mlp1: nn.Sequential
    mlp2: nn.Sequential | None
    pooling: nn.ModuleDict | None
    gating: nn.ModuleDict | None
    tensors: dict[str, torch.Tensor]


def _randomise(module: nn.Module) -> nn.Module:
    """Random everywhere: with the initial zeros and ones a swapped bias or scale would not be seen."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(0.0, 0.25)
            if parameter.dim() == 1 and "bias" not in name:
                parameter.add_(1.0)
    return module.eval()


def reference_vision(values: dict) -> nn.Module:
    """transformers' encoder for a released vision_config."""
    config = InternVLVisionConfig(
        hidden_size=values["hidden_size"],
        num_hidden_layers=values["num_hidden_layers"],
        num_attention_heads=values["num_attention_heads"],
        intermediate_size=values["intermediate_size"],
        attention_bias=values["qkv_bias"],
        use_qk_norm=values["qk_normalization"],
        norm_type=values["norm_type"],
        image_size=values["image_size"],
        patch_size=values["patch_size"],
    )
    return _randomise(InternVLVisionModel(config))


def reference_decoder(values: dict) -> nn.Module:
    """transformers' decoder for a released llm_config."""
    values = copy.deepcopy(values)  # transformers writes into the rope_scaling that it is given
    config = CONFIG_MAPPING[values.pop("model_type")](**values)
    config.dtype = torch.float32
    decoder = _randomise(AutoModelForCausalLM.from_config(config))
    decoder.tie_weights()
    return decoder


def released_vision_tensors(vision: nn.Module) -> dict[str, torch.Tensor]:
    """The encoder's weights under their released names, q, k and v fused."""
    tensors, out = vision.state_dict(), {}
    for name, tensor in tensors.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            fused = [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            name, tensor = name.replace("attention.q_proj", "attn.qkv"), torch.cat(fused)
        for ours, released in (
            ("cls_token", "class_embedding"),
            ("position_embeddings", "position_embedding"),
            ("patch_embeddings.projection", "patch_embedding"),
            ("encoder.layer.", "encoder.layers."),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("lambda_", "ls"),
            ("attention.projection_layer", "attn.proj"),
            ("attention.q_norm", "attn.q_norm"),
            ("attention.k_norm", "attn.k_norm"),
        ):
            name = name.replace(ours, released)
        out[f"vision_model.{name}"] = tensor
    return out


def released_decoder_tensors(decoder: nn.Module) -> dict[str, torch.Tensor]:
    """The decoder's weights under their released names, every expert on its own."""
    out = {}
    for name, tensor in decoder.state_dict().items():
        if name == "lm_head.weight" and decoder.config.tie_word_embeddings:
            continue
        if name.endswith("experts.gate_up_proj"):  # [experts, 2 * width, hidden]
            for expert, fused in enumerate(tensor):
                for part, half in zip(("gate_proj", "up_proj"), fused.chunk(2), strict=True):
                    out[name.replace("gate_up_proj", f"{expert}.{part}.weight")] = half
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(tensor):
                out[name.replace("down_proj", f"{expert}.down_proj.weight")] = down
        else:
            out[name] = tensor
    return {f"language_model.{name}": tensor for name, tensor in out.items()}


def _released_router() -> tuple[nn.ModuleDict, nn.ModuleDict, nn.Parameter]:
    pooling = nn.ModuleDict()
    for index in (1, 2, 3, 4):
        pooling[f"attn{index}"] = nn.MultiheadAttention(WIDTH, 16, batch_first=True)
        pooling[f"norm{index}"] = nn.LayerNorm(WIDTH)
    gating = nn.ModuleDict()
    for index in (1, 2, 3, 4):
        gating[f"block{index}"] = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.GELU(),
            nn.Dropout(),
            nn.Linear(4 * WIDTH, WIDTH),
            nn.Dropout(),
            nn.LayerNorm(WIDTH),
        )
    gating["gate"] = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2))
    query = nn.Parameter(torch.randn(1, WIDTH))
    return _randomise(pooling), _randomise(gating), query


def save_shards(folder: Path, tensors: dict[str, torch.Tensor], num_shards: int) -> None:
    """The tensors as safetensors, in one file or in shards beside an index."""
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = sorted(tensors), {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        part = names[shard::num_shards]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def released_config(llm_config: dict, vision_config: dict, **values: object) -> dict:
    """A config.json with the keys of a released one."""
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": "modeling_internvl_chat.InternVLChatModel",
            "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
        },
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": vision_config["image_size"],
        "hidden_size": WIDTH,
        "image_fold": None,
        "llm_config": copy.deepcopy(llm_config),
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "output_attentions": False,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "system_message": None,
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": None,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": vision_config,
    } | values


def build_released(folder, decoder="qwen3", vision="300m", *, flash=False, num_shards=1, seed=0, **config) -> Reference:
    """Write a tiny random checkpoint in the released layout and return what it was made from."""
    torch.manual_seed(seed)
    encoder, language_model = reference_vision(VISIONS[vision]), reference_decoder(DECODERS[decoder])
    mlp1 = _randomise(
        nn.Sequential(nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
    )
    tensors = released_vision_tensors(encoder) | released_decoder_tensors(language_model)
    tensors |= {f"mlp1.{name}": tensor for name, tensor in mlp1.state_dict().items()}
    mlp2 = pooling = gating = None
    if flash:
        mlp2 = _randomise(
            nn.Sequential(
                *(nn.LayerNorm(16 * WIDTH), nn.Linear(16 * WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout()),
                *(nn.Linear(2 * WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(), nn.Linear(2 * WIDTH, WIDTH)),
            )
        )
        pooling, gating, query = _released_router()
        tensors |= {f"mlp2.{name}": tensor for name, tensor in mlp2.state_dict().items()}
        tensors |= {f"pooling_before_gating.{name}": tensor for name, tensor in pooling.state_dict().items()}
        tensors |= {f"gating.{name}": tensor for name, tensor in gating.state_dict().items()}
        tensors["pooling_before_gating.query_token"] = query
        pooling.register_parameter("query_token", query)
        config = {"flash_mode": True, "flash_relative_threshold": 0.1, "flash_absolute_threshold": 0.5} | config
    folder.mkdir(parents=True, exist_ok=True)
    values = released_config(DECODERS[decoder], VISIONS[vision], **config)
    (folder / "config.json").write_text(json.dumps(values, indent=1))
    save_shards(folder, tensors, num_shards)
    return Reference(folder, encoder, language_model, mlp1, mlp2, pooling, gating, tensors)


def build_hf(
    folder: Path, decoder: str, vision: str = "300m", *, early_names: bool = False, **config: object
) -> nn.Module:
    """Write a tiny random checkpoint in the -HF layout and return transformers' model.

    Args:
        early_names: weights named as transformers did before its 4.53 (and saves to this day unless told otherwise).
        **config: outer settings of the model's configuration.
    """
    torch.manual_seed(0)
    values = {name: VISIONS[vision][name] for name in HF_VISION} | {
        "attention_bias": VISIONS[vision]["qkv_bias"],
        "use_qk_norm": VISIONS[vision]["qk_normalization"],
    }
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=values,
            text_config=copy.deepcopy(DECODERS[decoder]),
            image_token_id=IMAGE_TOKEN_ID,
            image_seq_length=4,
            **config,
        )
    )
    _randomise(model.float())
    model.tie_weights()
    model.save_pretrained(folder, save_original_format=early_names)
    return model


def released_pixel_shuffle(vit_tokens: torch.Tensor, scale: float, version: str = "v2") -> torch.Tensor:
    """Pixel shuffle, one side of the grid after the other as in the released code: [tiles, 1+N, C] to [tiles, n, c]."""
    tiles, length, channels = vit_tokens.shape
    side = round((length - 1) ** 0.5)
    short = int(side * scale)
    grid = vit_tokens[:, 1:].reshape(tiles, side, side, channels)
    grid = grid.view(tiles, side, short, int(channels / scale)).permute(0, 2, 1, 3).contiguous()
    grid = grid.view(tiles, short, short, int(channels / scale**2))
    if version == "v2":
        grid = grid.permute(0, 2, 1, 3).contiguous()
    return grid.flatten(1, 2)


@torch.inference_mode()
def reference_logits(reference: Reference, pixels, compressed, *, version: str = "v2") -> torch.Tensor:
    """Logits [1, N, vocabulary] of `prompt_ids`, from the reference modules composed by hand."""
    vit_tokens = reference.vision(pixel_values=pixels).last_hidden_state
    parts = []
    for tile, low in zip(vit_tokens, compressed, strict=True):
        scale, connector = (0.25, reference.mlp2) if low else (0.5, reference.mlp1)
        parts.append(connector(released_pixel_shuffle(tile[None], scale, version))[0])
    ids = prompt_ids(sum(map(len, parts)))
    embeddings = reference.decoder.get_input_embeddings()(ids)
    embeddings[ids == IMAGE_TOKEN_ID] = torch.cat(parts)
    return reference.decoder(inputs_embeds=embeddings).logits


def prompt_ids(num_visual: int) -> torch.Tensor:
    """[1, N]: text, the visual tokens' places, more text. 26 ids with two tiles at full length."""
    return torch.tensor([[3, 4, 5, *[IMAGE_TOKEN_ID] * num_visual, *range(6, 21)]])


@pytest.fixture(scope="session")
def pixels():
    """Two tiles [2, 3, 56, 56]."""
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def layouts():
    """The helpers above: a fixture, since the folders of the tests are no packages."""
    return SimpleNamespace(
        DECODERS=copy.deepcopy(DECODERS),
        VISIONS=VISIONS,
        IMAGE_TOKEN_ID=IMAGE_TOKEN_ID,
        build_released=build_released,
        build_hf=build_hf,
        prompt_ids=prompt_ids,
        reference_logits=reference_logits,
        reference_vision=reference_vision,
        reference_decoder=reference_decoder,
        released_vision_tensors=released_vision_tensors,
        released_decoder_tensors=released_decoder_tensors,
        released_config=released_config,
        save_shards=save_shards,
    )


@pytest.fixture(scope="session")
def flash(tmp_path_factory):
    """A Flash checkpoint with the qwen3 decoder, in one file. Read only."""
    return build_released(tmp_path_factory.mktemp("flash"), "qwen3", flash=True)


@pytest.fixture
def altered(flash, tmp_path):
    """Writes the Flash checkpoint again with tensors replaced (None leaves one out) and config.json updated."""

    def write(replace=None, num_shards=1, **config):
        tensors = {name: tensor for name, tensor in (flash.tensors | (replace or {})).items() if tensor is not None}
        values = json.loads((flash.folder / "config.json").read_text()) | config
        (tmp_path / "config.json").write_text(json.dumps(values))
        save_shards(tmp_path, tensors, num_shards)
        return str(tmp_path)

    return write
