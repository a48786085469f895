"""One configuration for all layouts of InternVL checkpoints.

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

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.checkpoint import refuse_quantised
from vico_eval.families.internvl.internlm2 import is_internlm2, llama_values

DECODERS = ("qwen3", "qwen3_moe", "qwen2", "llama")
"""`model_type` of supported language models."""

LAYOUTS = ("vico_internvl", "internvl_chat", "internvl")

PARTS: Mapping[str, Mapping[str, Any]] = {
    "low_connector": {},
    # Defaults of the released Flash code for configurations without thresholds.
    "router": {"relative_threshold": 0.1, "absolute_threshold": 0.5, "image_threshold": None},
    "image_router": {},
    "pvtc": {},
    "lvtc": {},
}
"""Parts that a checkpoint may have, with the defaults of their settings.

- `low_connector`: ViCO's low connector, which gives a tile a quarter of its visual tokens.
- `router`: ViCO's. A tile is compressed above the quantile `relative_threshold` of its request's scores (None switches
  that rule off, so that the decision about a tile depends on that tile alone) and at `absolute_threshold` or above; an
  image that is decided on as a whole, at `image_threshold` or above (None: at the absolute one).
- `image_router`: a router trained on whole images.
- `pvtc`: InternVL-X's projector, which replaces the connector.
- `lvtc`: InternVL-X's further projectors; settings are `vico_eval.methods.lvtc.LVTCSettings`.
"""

FLAGS = (
    *("has_low_connector", "has_router", "has_image_router", "connector", "lvtc"),
    *("flash_relative_threshold", "flash_absolute_threshold", "image_absolute_threshold"),
)
"""Names of parts and their settings in `config.json` by versions of this package before 0.2."""


class VicoInternVLConfig(PreTrainedConfig):
    """InternVL with ViCO's second connector and router.

    Args:
        vision_config: the vision encoder.
        text_config: the decoder, one of `DECODERS`.
        image_token_id: id of `<IMG_CONTEXT>`; None until a tokenizer is known.
        downsample_ratio: pixel shuffle of the high connector; the low one uses half of it.
        ps_version: "v2", or "v1" for checkpoints whose pixel shuffle swaps height and width.
        template: name of the conversation template (see `vico_eval.families.internvl.prompts`).
        system_message: replaces the template's own; "" for none.
        min_tiles, max_tiles, use_thumbnail: the tiling of an image.
        num_frames: number of frames of a video, one tile each.
        router_num_heads: heads of a router's attention pooling.
        parts: the checkpoint's parts besides encoder, connector and decoder, each with its settings; see `PARTS`.
        **kwargs: transformers' own settings, and flags for parts by older versions of this package.

    Raises:
        ConfigError: a part or a setting is unknown.
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
        template: str = "internvl2_5",
        system_message: str | None = None,
        min_tiles: int = 1,
        max_tiles: int = 12,
        use_thumbnail: bool = True,
        num_frames: int = 64,
        router_num_heads: int = 16,
        parts: Mapping[str, Mapping[str, Any]] | None = None,
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
        self.template = template
        self.system_message = system_message
        self.min_tiles = min_tiles
        self.max_tiles = max_tiles
        self.use_thumbnail = use_thumbnail
        self.num_frames = num_frames
        self.router_num_heads = router_num_heads
        flagged = _parts_of_flags({name: kwargs.pop(name) for name in FLAGS if name in kwargs})
        self.parts = _complete(flagged if parts is None else parts)
        kwargs.setdefault("tie_word_embeddings", bool(getattr(self.text_config, "tie_word_embeddings", False)))
        super().__init__(**kwargs)

    @property
    def tile_size(self) -> int:
        """Side of a tile in px."""
        return _side(self.vision_config.image_size)

    @property
    def vit_grid(self) -> int:
        """Vision tokens along a side of a tile."""
        return self.tile_size // _side(self.vision_config.patch_size)

    @property
    def high_block(self) -> int:
        """Side of the square of vision tokens that becomes one visual token in the high connector."""
        return round(1 / self.downsample_ratio)

    @property
    def num_high_tokens(self) -> int:
        """Visual tokens of an uncompressed tile."""
        return int(self.vit_grid * self.downsample_ratio) ** 2

    @property
    def num_low_tokens(self) -> int:
        """Visual tokens of a compressed tile."""
        return int(self.vit_grid * self.downsample_ratio / 2) ** 2


def _complete(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parts with all their settings."""
    if unknown := sorted(parts.keys() - PARTS.keys()):
        names = ", ".join(map(repr, unknown))
        raise ConfigError(f"unknown parts of a checkpoint: {names}; known are {', '.join(PARTS)}.")
    for name, settings in parts.items():
        if PARTS[name] and (strange := sorted(settings.keys() - PARTS[name].keys())):
            raise ConfigError(f"part {name!r} has no setting {', '.join(strange)}; it has {', '.join(PARTS[name])}.")
    return {name: {**PARTS[name], **settings} for name, settings in parts.items()}


def _parts_of_flags(flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parts that flags name; thresholds are settings of a router."""
    thresholds = {
        "relative_threshold": "flash_relative_threshold",
        "absolute_threshold": "flash_absolute_threshold",
        "image_threshold": "image_absolute_threshold",
    }
    parts: dict[str, dict[str, Any]] = {}
    if flags.get("has_low_connector"):
        parts["low_connector"] = {}
    if flags.get("has_router"):
        parts["router"] = {ours: flags[flag] for ours, flag in thresholds.items() if flag in flags}
    if flags.get("has_image_router"):
        parts["image_router"] = {}
    if flags.get("connector") == "pvtc":
        parts["pvtc"] = {}
    if flags.get("lvtc") is not None:
        parts["lvtc"] = dict(flags["lvtc"])
    return parts


# AutoTokenizer reads config.json beside the tokenizer and would warn about an unknown model type.
AutoConfig.register(VicoInternVLConfig.model_type, VicoInternVLConfig, exist_ok=True)


def _side(size: int | list[int] | tuple[int, ...]) -> int:
    """Return a square's side in px, which transformers writes once or for height and width."""
    return size if isinstance(size, int) else size[0]


def decoder_config(values: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the decoder's configuration from its section of a `config.json`.

    Raises:
        CheckpointError: the architecture isn't supported; the message lists those that are.
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
    """Return our configuration from a checkpoint's `config.json` and the names of its weights.

    ViCO's parts are determined from the weights, because a configuration may name parts that the files lack.

    Raises:
        CheckpointError: it isn't an InternVL checkpoint, or its architecture isn't supported.
    """
    model_type = values.get("model_type")
    if model_type not in LAYOUTS:
        raise CheckpointError(
            f"config.json has model_type {model_type!r}; expected one of {', '.join(LAYOUTS)}. "
            "Give the folder or the hub id of an InternVL 2, 2.5, 3, 3.5, 3.5-Flash or InternVL-X checkpoint."
        )
    refuse_quantised(values)
    if model_type == "internvl_chat":
        config = _from_released(values, tensor_names)
    elif model_type == "internvl":
        config = _from_hf(values, tensor_names)
    else:
        _require(values, {"connector": ("mlp", "pvtc")})
        try:
            config = VicoInternVLConfig(**values)
        except ConfigError as error:
            raise CheckpointError(f"config.json can't be used: {error}") from error
    # InternVL's first versions used one tile per image, or padded it to a square.
    _require(values, {"dynamic_image_size": (True,), "pad2square": (False,), "image_fold": (None,)})
    check_tiles(config)
    for name, threshold in config.parts.get("router", {}).items():
        if threshold is not None and not 0 <= threshold <= 1:
            raise CheckpointError(
                f"config.json has {name} {threshold} for the router; expected a probability in [0, 1]."
            )
    return config


def check_tiles(config: VicoInternVLConfig) -> None:
    """Raise CheckpointError if the limits on tiles allow no number of tiles."""
    few, many = config.min_tiles, config.max_tiles
    if not (isinstance(few, int) and isinstance(many, int) and 1 <= few <= many):
        raise CheckpointError(
            f"the checkpoint asks for at least {few!r} and at most {many!r} tiles of an image; expected integers "
            "from 1 up, the first no larger. Correct them in its config.json or preprocessor_config.json."
        )


def _require(values: Mapping[str, Any], expected: Mapping[str, tuple[Any, ...]]) -> None:
    """Reject settings that would change features and aren't implemented; missing ones are accepted."""
    for name, supported in expected.items():
        if values.get(name, supported[0]) not in supported:
            raise CheckpointError(
                f"config.json has {name} {values[name]!r}; supported is {' or '.join(map(repr, supported))}, "
                "as in every InternVL 2 to 3.5 and InternVL-X checkpoint."
            )


def _from_released(values: Mapping[str, Any], tensor_names: frozenset[str]) -> VicoInternVLConfig:
    parts: dict[str, dict[str, Any]] = {}
    if any(name.startswith("mlp2.") for name in tensor_names):
        parts["low_connector"] = {}
    if any(name.startswith(("gating.", "pooling_before_gating.")) for name in tensor_names):
        thresholds = ("relative_threshold", "absolute_threshold")
        parts["router"] = {name: values[f"flash_{name}"] for name in thresholds if f"flash_{name}" in values}
    if any(name.startswith("projector.") for name in tensor_names):
        parts["pvtc"] = {}
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
        template=values.get("template", "internvl2_5"),
        system_message=values.get("system_message"),
        min_tiles=values.get("min_dynamic_patch", 1),
        max_tiles=values.get("max_dynamic_patch", 12),
        use_thumbnail=values.get("use_thumbnail", True),
        parts=parts,
        dtype=values.get("dtype", values.get("torch_dtype")),
    )


def _released_vision(values: Mapping[str, Any]) -> InternVLVisionConfig:
    """Convert the released configuration to transformers' InternViT, with its defaults (InternViT-6B's)."""
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
    """Untie the head if the files contain one, because some checkpoints are marked as tied but have a trained head."""
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
