"""The models of a run: a checkpoint as it is, and with the parts that ViCO trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.checkpoint import check_tokenizer_fits
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model, load_tokenizer
from vico_eval.families.internvl.config import PARTS
from vico_eval.families.internvl.modeling import FlashParts, VicoInternVL
from vico_eval.training.config import LoraSettings
from vico_eval.training.models.blank import blank_model


def open_model(
    name: str, attn_implementation: str = "sdpa", *, is_blank: bool = False
) -> tuple[VicoInternVL, PreTrainedTokenizerBase]:
    """A checkpoint in float32, frozen, on the CPU, from where accelerate moves it; and its tokenizer.

    Args:
        name: a folder, a hub id or a built-in one.
        attn_implementation: attention kernel.
        is_blank: leave the weights on `meta`, unread.

    Raises:
        CheckpointError: it is missing or can't be loaded, or its tokenizer has no `<IMG_CONTEXT>` or doesn't fit.
    """
    checkpoint = find_checkpoint(name)
    if trained_in := checkpoint.facts.trained_in:
        raise CheckpointError(
            f"{name!r} is trained with {', '.join(sorted(trained_in))}, which ViCO's training does "
            "not run. Start from an InternVL checkpoint."
        )
    tokenizer = load_tokenizer(checkpoint)
    check_tokenizer_fits(tokenizer, checkpoint)
    model = blank_model(checkpoint.config) if is_blank else load_model(checkpoint, dtype="float32")
    model.requires_grad_(False)
    if attn_implementation != "sdpa":
        try:
            model.set_attn_implementation(attn_implementation)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"attn_implementation {attn_implementation} can't be used here: {error}") from error
    return model, tokenizer


def add_low_connector(model: VicoInternVL) -> None:
    """A new low connector with random weights, unless the model has one."""
    if model.connector_low is None:
        model.config.parts["low_connector"] = {}
        model.connector_low = FlashParts.build(model.config).connector_low


def add_router(model: VicoInternVL, level: str, *, dropout: float) -> None:
    """A new router for decisions about tiles or images, with random weights, in place of the one it may have.

    Args:
        model: gets it.
        level: "tile" or "image".
        dropout: share of values that its gating blocks drop in training.

    Raises:
        CheckpointError: the vision encoder's width can't be shared among the router's heads.
    """
    width, heads = model.config.vision_config.hidden_size, model.config.router_num_heads
    if width % heads:
        raise CheckpointError(
            f"the vision encoder is {width} wide, which the router's {heads} heads can't share; expected a multiple."
        )
    if level == "image":
        model.config.parts["image_router"] = {}
        model.image_router = router = FlashParts.build(model.config).image_router
    else:
        model.config.parts.setdefault("router", dict(PARTS["router"]))
        model.router = router = FlashParts.build(model.config).router
    assert router is not None
    for module in router.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def add_adapters(model: VicoInternVL, settings: LoraSettings) -> Any:
    """Adapters in every linear layer of the decoder but its head; its own weights stay frozen.

    Returns:
        peft's `LoraModel`, which switches them off. The decoder is changed in place.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise ConfigError("`lora` needs peft: pip install 'vico-eval[train]'.") from error
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_linear_layers(model),
    )
    adapters = LoraModel(model.language_model, config, "default")
    for name, parameter in model.language_model.named_parameters():
        if "lora_" in name:
            # peft gives them the precision of the weights that they stand beside.
            parameter.data = parameter.data.float()
    return adapters


def merge_adapters(weights: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """Weights by name of a model whose decoder has adapters, as those of a model without: W + alpha / rank x B A."""
    merged = {}
    for name, value in weights.items():
        layer = name.removesuffix(".base_layer.weight")
        if layer != name:
            down, up = (weights[f"{layer}.lora_{side}.default.weight"].float() for side in "AB")
            value = (value.float() + settings.alpha / settings.rank * (up @ down)).to(value.dtype)
        if ".lora_" not in name:
            merged[name.replace(".base_layer.", ".")] = value
    return merged


def halve_reference(reference: VicoInternVL) -> None:
    """Give the linear layers of a frozen decoder weights of 8 bits, scaled row by row (torchao); its head stays.

    Raises:
        ConfigError: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ConfigError("`reference: int8` needs torchao: pip install 'vico-eval[train]'.") from error
    quantize_(reference.language_model.model, Int8WeightOnlyConfig())


def _linear_layers(model: VicoInternVL) -> list[str]:
    """The names that the decoder's linear layers have in each of its layers, such as `q_proj`."""
    modules = model.language_model.model.named_modules()
    return sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)})
