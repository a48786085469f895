"""One configuration for every layout an InternVL checkpoint comes in.

Three kinds of `config.json` are understood:

- `vico_internvl`: what this package saves;
- `internvl_chat`: the custom-code layout of InternVL 2, 2.5, 3, 3.5, 3.5-Flash and InternVL-X;
- `internvl`: the `-HF` layout of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.internvl import InternVLVisionConfig

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.internlm2 import is_internlm2, llama_values

DECODERS = ("qwen3", "qwen3_moe", "qwen2", "llama")
"""`model_type` of the language models that a checkpoint may hold."""

LAYOUTS = ("vico_internvl", "internvl_chat", "internvl")
CONNECTORS = ("mlp", "pvtc")

QUANTISED = ("quantization_config", "compression_config")
"""Keys under which a `config.json`, or the part of it for one of its models, says how its weights are quantised."""

# The released Flash code routes with these when a config names none.
DEFAULT_RELATIVE_THRESHOLD = 0.1
DEFAULT_ABSOLUTE_THRESHOLD = 0.5


class VicoInternVLConfig(PreTrainedConfig):
    """InternVL with ViCO's second connector and router.

    Args:
        vision_config: the vision encoder.
        text_config: the decoder, one of `DECODERS`.
        image_token_id: id of `<IMG_CONTEXT>`; None until a tokenizer is known.
        downsample_ratio: pixel shuffle of the high connector; the low one uses half of it.
        ps_version: "v2", or "v1" for checkpoints whose pixel shuffle leaves height and width swapped.
        connector: what a tile's full visual tokens come from: "mlp" (pixel shuffle and MLP) or "pvtc" (InternVL-X).
        template: name of the conversation template (see `vico_eval.families.internvl.prompts`).
        system_message: replaces the template's own; "" for none.
        min_tiles, max_tiles, use_thumbnail: the tiling of an image.
        num_frames: frames shown of a video, one tile each.
        has_low_connector, has_router, has_image_router: which of ViCO's parts the checkpoint holds.
        router_num_heads: heads of the router's attention pooling.
        flash_relative_threshold: a tile is compressed only above this quantile of its request's scores; None switches
            the relative rule off, so that the decision of a tile depends on that tile alone.
        flash_absolute_threshold: and only at this score or above.
        image_absolute_threshold: the same for the image-level router.
        lvtc: settings of LVTC, for a checkpoint that holds its projectors (`vico_eval.methods.lvtc.LVTCSettings`).
    """

    model_type = "vico_internvl"
    sub_configs: ClassVar[dict[str, type]] = {"vision_config": InternVLVisionConfig, "text_config": AutoConfig}

    def __init__(
        self,
        vision_config: InternVLVisionConfig | Mapping[str, Any] | None = None,
        text_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        image_token_id: int | None = None,
        downsample_ratio: float = 0.5,
        ps_version: str = "v2",
        connector: str = "mlp",
        template: str = "internvl2_5",
        system_message: str | None = None,
        min_tiles: int = 1,
        max_tiles: int = 12,
        use_thumbnail: bool = True,
        num_frames: int = 64,
        has_low_connector: bool = False,
        has_router: bool = False,
        has_image_router: bool = False,
        router_num_heads: int = 16,
        flash_relative_threshold: float | None = DEFAULT_RELATIVE_THRESHOLD,
        flash_absolute_threshold: float = DEFAULT_ABSOLUTE_THRESHOLD,
        image_absolute_threshold: float | None = None,
        lvtc: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(vision_config, Mapping):
            vision_config = InternVLVisionConfig(**vision_config)
        if isinstance(text_config, Mapping):
            text_config = decoder_config(text_config)
        self.vision_config = vision_config if vision_config is not None else InternVLVisionConfig()
        self.text_config = text_config if text_config is not None else decoder_config({"model_type": "qwen3"})
        self.image_token_id = image_token_id
        if not 0 < downsample_ratio <= 1:
            raise ValueError(f"downsample_ratio is {downsample_ratio}; expected a share in (0, 1], such as 0.5")
        self.downsample_ratio = downsample_ratio
        self.ps_version = ps_version
        self.connector = connector
        self.template = template
        self.system_message = system_message
        self.min_tiles = min_tiles
        self.max_tiles = max_tiles
        self.use_thumbnail = use_thumbnail
        self.num_frames = num_frames
        self.has_low_connector = has_low_connector
        self.has_router = has_router
        self.has_image_router = has_image_router
        self.router_num_heads = router_num_heads
        self.flash_relative_threshold = flash_relative_threshold
        self.flash_absolute_threshold = flash_absolute_threshold
        self.image_absolute_threshold = image_absolute_threshold
        self.lvtc = None if lvtc is None else dict(lvtc)
        kwargs.setdefault("tie_word_embeddings", bool(getattr(self.text_config, "tie_word_embeddings", False)))
        super().__init__(**kwargs)

    @property
    def tile_size(self) -> int:
        """Side of a tile in px."""
        return _side(self.vision_config.image_size)

    @property
    def vit_grid(self) -> int:
        """Vision tokens along one side of a tile."""
        return self.tile_size // _side(self.vision_config.patch_size)

    @property
    def high_block(self) -> int:
        """Side of the square of vision tokens that becomes one visual token in the high connector."""
        return round(1 / self.downsample_ratio)

    @property
    def num_high_tokens(self) -> int:
        """Visual tokens of a tile at full length."""
        return int(self.vit_grid * self.downsample_ratio) ** 2

    @property
    def num_low_tokens(self) -> int:
        """Visual tokens of a compressed tile."""
        return int(self.vit_grid * self.downsample_ratio / 2) ** 2


# AutoTokenizer reads config.json beside the tokenizer: without this it warns of a model type that it does not know.
AutoConfig.register(VicoInternVLConfig.model_type, VicoInternVLConfig, exist_ok=True)


def _side(size: int | list[int] | tuple[int, ...]) -> int:
    """Side of a square in px, which transformers writes once or for height and width."""
    return size if isinstance(size, int) else size[0]


def decoder_config(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The decoder's configuration from its part of a `config.json`.

    Raises:
        CheckpointError: an architecture that is not supported; names it and those that are.
    """
    values = llama_values(values) if is_internlm2(values) else dict(values)
    model_type = values.pop("model_type", None)
    if model_type not in DECODERS:
        architecture = (values.get("architectures") or [model_type])[0]
        raise CheckpointError(
            f"the checkpoint's language model is {architecture!r} (model_type {model_type!r}); supported are "
            f"{', '.join(DECODERS)} and internlm2. Choose a checkpoint whose language model is one of these."
        )
    return CONFIG_MAPPING[model_type](**values)


def from_checkpoint_config(values: Mapping[str, Any], tensor_names: frozenset[str]) -> VicoInternVLConfig:
    """Our configuration from a checkpoint's `config.json` and the names of its weights.

    Which of ViCO's parts exist is read off the weights: a config can promise what the files do not hold.

    Raises:
        CheckpointError: not an InternVL checkpoint, or one with an architecture that is not supported.
    """
    model_type = values.get("model_type")
    if model_type not in LAYOUTS:
        raise CheckpointError(
            f"config.json says model_type {model_type!r}; expected one of {', '.join(LAYOUTS)}. "
            "Give the folder or the hub id of an InternVL 2, 2.5, 3, 3.5, 3.5-Flash or InternVL-X checkpoint."
        )
    _refuse_quantised(values)
    if model_type == "internvl_chat":
        config = _from_released(values, tensor_names)
    elif model_type == "internvl":
        config = _from_hf(values, tensor_names)
    else:
        config = VicoInternVLConfig(**values)
    _require(vars(config), {"connector": CONNECTORS})
    # InternVL's first versions showed a picture as one tile, or padded it to a square.
    _require(values, {"dynamic_image_size": (True,), "pad2square": (False,), "image_fold": (None,)})
    check_tiles(config)
    for name in ("flash_relative_threshold", "flash_absolute_threshold", "image_absolute_threshold"):
        threshold = getattr(config, name)
        if threshold is not None and not 0 <= threshold <= 1:
            raise CheckpointError(f"config.json says {name} {threshold}; expected a probability in [0, 1].")
    return config


def check_tiles(config: VicoInternVLConfig) -> None:
    """Raises CheckpointError if no number of tiles lies between the limits: no image could be cut."""
    few, many = config.min_tiles, config.max_tiles
    if not (isinstance(few, int) and isinstance(many, int) and 1 <= few <= many):
        raise CheckpointError(
            f"the checkpoint asks for at least {few!r} and at most {many!r} tiles of an image; expected whole numbers "
            "from 1 up, the first no larger. Correct them in its config.json or preprocessor_config.json."
        )


def _refuse_quantised(values: Mapping[str, Any]) -> None:
    """Raises CheckpointError for weights that are packed: they have other names, shapes and meanings."""
    parts = {"": values} | {
        f"{name}.": values[name]
        for name in ("llm_config", "text_config", "vision_config")
        if isinstance(values.get(name), Mapping)
    }
    for place, part in parts.items():
        for key in QUANTISED:
            if not (found := part.get(key)):
                continue
            method = found.get("quant_method") if isinstance(found, Mapping) else found
            if method is None and ("load_in_4bit" in found or "load_in_8bit" in found):
                method = "bitsandbytes"
            raise CheckpointError(
                f"the checkpoint's weights are quantised ({method or 'unnamed method'}: {place}{key} in config.json); "
                "expected float32, bfloat16 or float16. Load the checkpoint that it was made from."
            )


def _require(values: Mapping[str, Any], expected: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse settings that would change the features and that this package does not compute; absent ones pass."""
    for name, supported in expected.items():
        if values.get(name, supported[0]) not in supported:
            raise CheckpointError(
                f"config.json says {name} {values[name]!r}; supported is {' or '.join(map(repr, supported))}, "
                "as in every InternVL 2 to 3.5 and InternVL-X checkpoint."
            )


def _from_released(values: Mapping[str, Any], tensor_names: frozenset[str]) -> VicoInternVLConfig:
    low = any(name.startswith("mlp2.") for name in tensor_names)
    router = any(name.startswith(("gating.", "pooling_before_gating.")) for name in tensor_names)
    flash: dict[str, Any] = {
        ours: values[ours] for ours in ("flash_relative_threshold", "flash_absolute_threshold") if ours in values
    }
    if "llm_config" not in values or "vision_config" not in values:
        raise CheckpointError(
            "config.json has no llm_config or no vision_config; expected both, as InternVL writes them."
        )
    tile_size = values["vision_config"]["image_size"]
    _require(values, {"select_layer": (-1,), "ps_version": ("v2", "v1"), "force_image_size": (tile_size, None)})
    text_config = decoder_config(values["llm_config"])
    _untie_if_it_has_a_head(text_config, tensor_names)
    return VicoInternVLConfig(
        vision_config=_released_vision(values["vision_config"]),
        text_config=text_config,
        downsample_ratio=values.get("downsample_ratio", 0.5),
        ps_version=values.get("ps_version", "v1"),  # the released code's own default
        connector="pvtc" if any(name.startswith("projector.") for name in tensor_names) else "mlp",
        template=values.get("template", "internvl2_5"),
        system_message=values.get("system_message"),
        min_tiles=values.get("min_dynamic_patch", 1),
        max_tiles=values.get("max_dynamic_patch", 12),
        use_thumbnail=values.get("use_thumbnail", True),
        has_low_connector=low,
        has_router=router,
        dtype=values.get("dtype", values.get("torch_dtype")),
        **flash,
    )


def _released_vision(values: Mapping[str, Any]) -> InternVLVisionConfig:
    """transformers' InternViT, in the words of the released configuration and with its defaults (InternViT-6B's)."""
    return InternVLVisionConfig(
        hidden_size=values["hidden_size"],
        num_hidden_layers=values["num_hidden_layers"],
        num_attention_heads=values["num_attention_heads"],
        intermediate_size=values["intermediate_size"],
        hidden_act=values.get("hidden_act", "gelu"),
        attention_bias=values.get("qkv_bias", False),
        use_qk_norm=values.get("qk_normalization", True),
        norm_type=values.get("norm_type", "rms_norm"),
        layer_norm_eps=values.get("layer_norm_eps", 1e-6),
        image_size=values["image_size"],
        patch_size=values["patch_size"],
        num_channels=values.get("num_channels", 3),
        layer_scale_init_value=values.get("initializer_factor", 0.1),
    )


def _untie_if_it_has_a_head(text_config: PreTrainedConfig, tensor_names: frozenset[str]) -> None:
    """Checkpoints exist that say tied and hold a trained head of their own: what the files hold counts."""
    if any(name.endswith(("lm_head.weight", "language_model.output.weight")) for name in tensor_names):
        text_config.tie_word_embeddings = False


def _from_hf(values: Mapping[str, Any], tensor_names: frozenset[str]) -> VicoInternVLConfig:
    _require(
        values,
        {
            "vision_feature_layer": (-1,),
            "vision_feature_select_strategy": ("default",),
            "projector_hidden_act": ("gelu",),
        },
    )
    if "text_config" not in values or "vision_config" not in values:
        raise CheckpointError(
            "config.json has no text_config or no vision_config; expected both, as transformers writes them."
        )
    text_config = decoder_config(values["text_config"])
    # transformers ties by the outer setting, which is true unless given.
    text_config.tie_word_embeddings |= values.get("tie_word_embeddings", True)
    _untie_if_it_has_a_head(text_config, tensor_names)
    return VicoInternVLConfig(
        vision_config=values["vision_config"],
        text_config=text_config,
        image_token_id=values.get("image_token_id"),
        downsample_ratio=values.get("downsample_ratio", 0.5),
        dtype=values.get("dtype", values.get("torch_dtype")),
    )
