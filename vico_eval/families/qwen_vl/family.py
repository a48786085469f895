"""Qwen-VL as a family: the engine's interface to the modules of this folder."""

from __future__ import annotations

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeForConditionalGeneration,
)

from vico_eval.errors import CheckpointError
from vico_eval.families.checkpoint import check_tokenizer_fits
from vico_eval.families.family import Family, Placement
from vico_eval.families.qwen_vl.checkpoint import QwenCheckpoint, find_checkpoint
from vico_eval.families.qwen_vl.model import QwenVLModel
from vico_eval.families.qwen_vl.prompting import QwenPrompting
from vico_eval.families.weights import load_placed

CLASSES: dict[str, type[PreTrainedModel]] = {
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
    "qwen3_vl_moe": Qwen3VLMoeForConditionalGeneration,
}
"""The model classes, by `model_type`."""


class QwenVL(Family):
    """Qwen2.5-VL and Qwen3-VL, dense and with experts."""

    needs_positions = (
        "each token has a position on three axes (M-RoPE), and in Qwen3-VL the encoder's features go into the first "
        "layers as well (DeepStack). vLLM has no way to be given either: it counts the positions of embeddings as of "
        "text (GPUModelRunner._init_mrope_positions in vllm/v1/worker/gpu_model_runner.py, vLLM 0.32.0)"
    )

    def find(self, pretrained: str, *, allow_pickle: bool) -> QwenCheckpoint:
        """Find a checkpoint; see `find_checkpoint`."""
        return find_checkpoint(str(pretrained), allow_pickle=allow_pickle)

    def tokenizer(self, checkpoint: QwenCheckpoint) -> PreTrainedTokenizerBase:
        """Return the processor's tokenizer, after checking it against the embedding."""
        tokenizer: PreTrainedTokenizerBase = checkpoint.processor.tokenizer
        check_tokenizer_fits(tokenizer, checkpoint)
        return tokenizer

    def prompting(self, checkpoint: QwenCheckpoint) -> QwenPrompting:
        """Return the prompting by the checkpoint's chat template and processors."""
        return QwenPrompting(checkpoint.processor)

    def load(
        self, checkpoint: QwenCheckpoint, placement: Placement, image_token_id: int, *, with_decoder: bool = True
    ) -> QwenVLModel:
        """Load transformers' own model.

        Raises:
            CheckpointError: see `Family.load`; also if only the encoder is requested.
        """
        if not with_decoder:
            raise CheckpointError(
                "other programs can't decode for Qwen-VL: they receive prompts as embeddings, without their positions "
                "on three axes. Pass engine=transformers."
            )
        whole = load_placed(
            CLASSES[checkpoint.config.model_type],
            checkpoint,
            dtype=placement.dtype,
            device=placement.device,
            device_map=placement.device_map,
            attn_implementation=placement.attn_implementation,
        )
        return QwenVLModel(whole, checkpoint.processor, checkpoint.name, image_token_id)
