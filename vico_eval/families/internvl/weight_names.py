"""Conversion of weight names: from all layouts of checkpoints to this package's modules, and to the released layout.

`register_checkpoint_conversion_mapping` makes `from_pretrained` apply them, for any sharding and device map. Our own
names don't change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming

from vico_eval.families.internvl import internlm2

DEAD_ROUTER_WEIGHTS = r"^pooling_before_gating\.(attn|norm)[34]\."
"""Weights in every released Flash checkpoint that are never used: the released code repeats block 2 instead."""

_VISION_LAYER = r"(vision_tower\.encoder\.layer\.\d+)"

FUSED_QKV = ".attn.qkv"
SPLIT_QKV = (".attention.q_proj", ".attention.k_proj", ".attention.v_proj")
"""Queries, keys and values of the vision encoder: one projection in the released layout, three here."""

STACKED_EXPERTS = (".experts.gate_up_proj", ".experts.down_proj")
"""A layer's experts, stacked as in transformers; in releases they are separate."""

RELEASED: tuple[tuple[str, str], ...] = (
    # vision encoder
    (r"^vision_model\.embeddings\.class_embedding", "vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding", "vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "vision_tower.embeddings.patch_embeddings.projection."),
    (r"^vision_model\.encoder\.layers\.", "vision_tower.encoder.layer."),
    (_VISION_LAYER + r"\.norm1\.", r"\1.layernorm_before."),
    (_VISION_LAYER + r"\.norm2\.", r"\1.layernorm_after."),
    (_VISION_LAYER + r"\.ls1", r"\1.lambda_1"),
    (_VISION_LAYER + r"\.ls2", r"\1.lambda_2"),
    (_VISION_LAYER + r"\.attn\.proj\.", r"\1.attention.projection_layer."),
    (_VISION_LAYER + r"\.attn\.q_norm\.", r"\1.attention.q_norm."),
    (_VISION_LAYER + r"\.attn\.k_norm\.", r"\1.attention.k_norm."),
    # connectors; the gaps are activations and dropout
    (r"^mlp1\.0\.", "connector_high.norm."),
    (r"^mlp1\.1\.", "connector_high.linear_1."),
    (r"^mlp1\.3\.", "connector_high.linear_2."),
    (r"^mlp2\.0\.", "connector_low.norm."),
    (r"^mlp2\.1\.", "connector_low.linear_1."),
    (r"^mlp2\.4\.", "connector_low.linear_2."),
    (r"^mlp2\.7\.", "connector_low.linear_3."),
    # router
    (r"^pooling_before_gating\.query_token", "router.query"),
    (r"^pooling_before_gating\.attn1\.", "router.first_attention."),
    (r"^pooling_before_gating\.norm1\.", "router.first_norm."),
    (r"^pooling_before_gating\.attn2\.", "router.repeated_attention."),
    (r"^pooling_before_gating\.norm2\.", "router.repeated_norm."),
    *(
        (rf"^gating\.block{block}\.{theirs}\.", f"router.blocks.{block - 1}.{ours}.")
        for block in (1, 2, 3, 4)
        for theirs, ours in ((0, "up"), (3, "down"), (5, "norm"))
    ),
    (r"^gating\.gate\.0\.", "router.gate_norm."),
    (r"^gating\.gate\.1\.", "router.gate."),
)
"""The custom-code layout of InternVL 2 to 3.5-Flash; later renames build on earlier ones."""

_PVTC: tuple[tuple[str, str], ...] = (
    *(
        (rf"^projector\.{theirs}\.{index}\.", f"connector_high.{ours}.{part}.")
        for theirs, ours in (("mlp1", "local_query"), ("mlp2", "global_query"), ("mlp3", "key_value"))
        for index, part in ((0, "norm"), (1, "linear"))
    ),
    (r"^projector\.cls_scale", "connector_high.cls_scale"),
    *(
        (rf"^projector\.attn_(local|global)\.{theirs}\.", rf"connector_high.\1_block.{ours}.")
        for theirs, ours in (
            *((r"attn\.norm1", "query_norm"), (r"attn\.norm2", "key_norm"), (r"attn\.q", "query")),
            *((r"attn\.k", "key"), (r"attn\.v", "value"), (r"attn\.proj", "projection")),
            *((r"mlp\.norm", "mlp_norm"), (r"mlp\.w1", "gate"), (r"mlp\.w3", "up"), (r"mlp\.w2", "down")),
        )
    ),
)
"""InternVL-X's names, in addition to the released ones."""

_HF: tuple[tuple[str, str], ...] = (
    (r"^model\.vision_tower\.", "vision_tower."),
    (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
    (r"^multi_modal_projector\.layer_norm\.", "connector_high.norm."),
    (r"^multi_modal_projector\.linear_1\.", "connector_high.linear_1."),
    (r"^multi_modal_projector\.linear_2\.", "connector_high.linear_2."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
)
"""The -HF layout, as saved by transformers before and since version 4.53."""

RENAMED = (*RELEASED, *_PVTC, *internlm2.RENAMED, *_HF)


def _undone(theirs: str, ours: str) -> tuple[str, str]:
    """Return the pattern and replacement that undo a renaming, whose sides are literal except for one captured
    group."""
    pattern, replacement = f"^{re.escape(ours)}", theirs.removeprefix("^")
    if group := re.search(r"\(.*\)", theirs):
        pattern, replacement = pattern.replace(r"\\1", group[0]), replacement.replace(group[0], r"\1")
    return pattern, replacement.replace(r"\.", ".")


_UNDONE = [_undone(*names) for names in reversed(RELEASED)]


def released_name(name: str) -> str:
    """Return a weight's name in the released layout from its name in this package, after the encoder's q, k, v are
    fused.

    transformers also reverses renames, but its `.` matches any character, so `router.gate_norm` would match
    `router.gate.`.
    """
    for ours, theirs in _UNDONE:
        name = re.sub(ours, theirs, name, count=1)
    return name


def decoder_name(name: str) -> str | None:
    """Return a weight's name in the decoder alone (`model.layers.0...`) from its name in any layout; None for other
    parts."""
    for theirs, ours in RENAMED:
        name = re.sub(theirs, ours, name, count=1)
    prefix = "language_model."
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def one_by_one(name: str, stacked: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Split experts as in releases: [experts, kinds * out, in] of one or two kinds to named [out, in]."""
    experts, joined = name.rsplit(".", 1)
    kinds = joined.removesuffix("_proj").split("_")
    for expert, kinds_of_expert in enumerate(stacked):
        for kind, weight in zip(kinds, kinds_of_expert.chunk(len(kinds)), strict=True):
            yield f"{experts}.{expert}.{kind}_proj.weight", weight


def conversions() -> list[WeightRenaming | WeightConverter]:
    """Return transformers' conversions of a checkpoint's weights: renames first, then splitting the fused q, k, v."""
    split = WeightConverter(
        source_patterns=FUSED_QKV,
        target_patterns=list(SPLIT_QKV),
        operations=[Chunk(dim=0)],
    )
    return [*(WeightRenaming(theirs, ours) for theirs, ours in RENAMED), split, internlm2.split_qkv()]


def expert_problems(shapes: Mapping[str, Sequence[int]], text_config: PreTrainedConfig) -> list[str]:
    """Return the problems of experts that are stored separately (`...experts.7.up_proj.weight`), by name.

    Args:
        shapes: shape by name of a checkpoint's weights; other names are ignored.
        text_config: the decoder's configuration; one without experts has no problems.
    """
    num_experts = getattr(text_config, "num_experts", 0)
    if not num_experts:
        return []
    up = [text_config.moe_intermediate_size, text_config.hidden_size]
    parts = {"gate_proj": up, "up_proj": up, "down_proj": up[::-1]}
    layers = {match[1] for name in shapes if (match := re.match(r"(.*\.experts\.)\d+\.", name))}
    expected = {
        f"{layer}{expert}.{part}.weight": shape
        for layer in layers
        for expert in range(num_experts)
        for part, shape in parts.items()
    }
    stored = {name: list(shape) for name, shape in shapes.items() if name.startswith(tuple(layers))}
    return [
        *(f"missing: {name}" for name in expected.keys() - stored.keys()),
        *(f"unexpected: {name}" for name in stored.keys() - expected.keys()),
        *(
            f"{name} has shape {stored[name]}, expected {expected[name]}"
            for name in expected.keys() & stored.keys()
            if stored[name] != expected[name]
        ),
    ]
