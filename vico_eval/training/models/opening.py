"""Opening the models of a run: loading a checkpoint and adding the parts that ViCO trains."""

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
    """Load a checkpoint's frozen float32 model on the CPU, from where accelerate moves it, and its tokenizer.

    Args:
        name: a folder, a hub id or a built-in name.
        attn_implementation: the attention kernel.
        is_blank: leave the weights on `meta`, unread.

    Raises:
        CheckpointError: it is missing, can't be loaded or is of a type trained elsewhere, or its tokenizer has no
            `<IMG_CONTEXT>` or doesn't fit.
        ConfigError: the attention kernel is not available.
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
            raise ConfigError(f"attn_implementation {attn_implementation} is not available: {error}") from error
    return model, tokenizer


def add_low_connector(model: VicoInternVL) -> None:
    """Add a new low connector with random weights, unless the model has one."""
    if model.connector_low is None:
        model.config.parts["low_connector"] = {}
        model.connector_low = FlashParts.build(model.config).connector_low


def add_router(model: VicoInternVL, level: str, *, dropout: float) -> None:
    """Add a new router for tiles or images, with random weights, in place of any that the model has.

    Args:
        model: receives the router.
        level: "tile" or "image".
        dropout: dropout rate of its gating blocks during training.

    Raises:
        CheckpointError: the vision encoder's width can't be shared among the router's heads.
    """
    width, heads = model.config.vision_config.hidden_size, model.config.router_num_heads
    if width % heads:
        raise CheckpointError(
            f"The vision encoder's width {width} can't be divided among the router's {heads} heads; expected a "
            f"multiple of {heads}."
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
    """Add adapters to every linear layer of the decoder except its head; the decoder's own weights stay frozen.

    Returns:
        peft's `LoraModel`, which can switch the adapters off. The decoder is changed in place.

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
            # peft creates them in the precision of the weights that they adapt.
            parameter.data = parameter.data.float()
    return adapters


def merge_adapters(weights: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """Merge the adapters into the decoder's weights, W + alpha / rank x B A, and return weights without adapters."""
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
    """Quantise the linear layers of a frozen decoder to 8-bit weights, scaled row by row (torchao), except its head.

    Raises:
        ConfigError: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ConfigError("`reference: int8` needs torchao: pip install 'vico-eval[train]'.") from error
    quantize_(reference.language_model.model, Int8WeightOnlyConfig())


def _linear_layers(model: VicoInternVL) -> list[str]:
    """Return the names of the linear layers within a decoder layer, such as `q_proj`."""
    modules = model.language_model.model.named_modules()
    return sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)})
