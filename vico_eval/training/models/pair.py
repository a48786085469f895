"""The policy and the frozen reference in one forward pass, shared by both stages and the held-out report.

Shapes: samples, tiles, answers as in `batches`; routings = ways of routing the same tiles; D = decoder width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.tiling import normalise
from vico_eval.training.data.batches import MicroBatch
from vico_eval.training.models.losses import compare_answers
from vico_eval.training.models.measures import document_means
from vico_eval.training.models.packed_attention import packed_inputs


class Consistency(NamedTuple):
    """The distance of the policy's answers from the reference's, under each routing."""

    kl: Tensor
    """[routings, samples], in nats, mean over a sample's answer tokens."""

    agreement: Tensor
    """[routings, samples], share of answer tokens for which both rank the same token first."""

    vit_tokens: Tensor
    """[tiles, 1 + h*w, C], from the policy's vision encoder."""


class PolicyAndReference(nn.Module):
    """The policy and the reference that it is trained to be consistent with.

    The reference is a frozen copy of the policy's initial weights. A frozen vision encoder is shared instead of copied,
    and its output is computed once. There is no copy where the policy itself can give the reference's answers: with
    LoRA, by switching its adapters off, and while only the low connector is trained.
    """

    def __init__(
        self,
        policy: VicoInternVL,
        reference: VicoInternVL | None,
        *,
        adapters: Any = None,
        chunk: int = 256,
        most: Callable[[int], int] | None = None,
    ) -> None:
        """
        Args:
            policy: the model in training.
            reference: from `frozen_copy`; None if the policy itself gives the reference's answers.
            adapters: the peft `LoraModel` around the policy's decoder; switched off for the reference's answers.
            chunk: answer tokens whose logits are in memory at once.
            most: returns a number's maximum over all processes; for ZeRO-3, where every process must call the heads
                equally often.
        """
        super().__init__()
        assert reference is None or adapters is None, "either a reference copy or adapters, not both"
        self.policy = policy
        self.reference = reference
        self.chunk = chunk
        self._most = most
        # In a list, so that it is not registered as a submodule: its modules already belong to the policy's decoder.
        self._adapters = [adapters]

    @property
    def shares_vision(self) -> bool:
        """Whether policy and reference use the same vision tokens."""
        return self.reference is None or self.reference.vision_tower is self.policy.vision_tower

    def train(self, mode: bool = True) -> PolicyAndReference:
        """Set the mode; the reference and a frozen vision encoder stay in evaluation mode."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()  # type: ignore[no-untyped-call]
        if self.shares_vision:
            self.policy.vision_tower.eval()
        return self

    @property
    def _no_split_modules(self) -> list[str]:
        """The class names of decoder and encoder layers, which accelerate shards one by one with FSDP2."""
        models = [model for model in (self.policy, self.reference) if model is not None]
        stacks = [model.language_model.model.layers for model in models]
        stacks += [model.vision_tower.encoder.layer for model in models]
        return sorted({type(layer).__name__ for stack in stacks for layer in stack})

    def tie_weights(self) -> None:
        """Tie embedding and head again where they were tied; accelerate calls this after it has moved the weights.

        Otherwise FSDP2 would train a separate head in models that tie it to the embedding (up to 4B).
        """
        for model in (self.policy, self.reference):
            if model is not None:
                model.tie_weights()

    def forward(self, batch: MicroBatch, routings: Sequence[Tensor]) -> Consistency:
        """Run the reference with every tile high, and the policy under each of `routings`, each [tiles] bool.

        Gradients reach the policy if autograd is on, and never the reference.
        """
        pixels = _tiles(batch, self.policy)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.shares_vision):
            vit_tokens = self.policy.encode_tiles(pixels)
        with torch.no_grad(), self._as_reference() as (reference, head):
            own = vit_tokens if self.shares_vision else reference.encode_tiles(pixels)
            high = torch.zeros(len(batch.tiles), dtype=torch.bool)
            reference_hidden, sample = answer_states(reference, batch, own.detach(), high)
        num_chunks = self._most(-(-len(sample) // self.chunk)) if self._most is not None else 0
        kl, agreement = [], []
        for compressed in routings:
            hidden, _ = answer_states(self.policy, batch, vit_tokens, compressed)
            compared = compare_answers(
                reference_hidden,
                head,
                hidden,
                self.policy.get_output_embeddings(),
                chunk=self.chunk,
                num_chunks=num_chunks,
            )
            kl.append(document_means(compared.kl, sample, len(batch)))
            agreement.append(document_means(compared.agrees.float(), sample, len(batch)))
        return Consistency(torch.stack(kl), torch.stack(agreement), vit_tokens[: len(batch.tiles)])

    @contextmanager
    def _as_reference(self) -> Iterator[tuple[VicoInternVL, nn.Module]]:
        """Yield the reference and its head, with any adapters switched off."""
        if self.reference is not None:
            yield self.reference, self.reference.get_output_embeddings()
            return
        (adapters,) = self._adapters
        if adapters is not None:
            adapters.disable_adapter_layers()
        try:
            yield self.policy, self.policy.get_output_embeddings()
        finally:
            if adapters is not None:
                adapters.enable_adapter_layers()


def frozen_copy(policy: VicoInternVL, *, train_vision: bool, dtype: torch.dtype | None = None) -> VicoInternVL:
    """Return a frozen copy of the policy's current weights, without ViCO's parts.

    Args:
        policy: the policy before its training.
        train_vision: whether the policy's vision encoder will be trained; if not, it is shared instead of copied.
        dtype: precision of the copied weights; by default the policy's.
    """
    parts = {name: getattr(policy, name) for name in ("connector_low", "router", "image_router")}
    for name in parts:
        setattr(policy, name, None)
    try:
        shared = {} if train_vision else {id(policy.vision_tower): policy.vision_tower}
        own = (part for name, part in policy.named_children() if train_vision or name != "vision_tower")
        # Copy each weight directly to its final precision: copying first and rounding later takes twice the memory.
        weights = {id(weight): _frozen(weight, dtype) for part in own for weight in part.parameters()}
        reference: VicoInternVL = copy.deepcopy(policy, {**shared, **weights})
    finally:
        for name, part in parts.items():
            setattr(policy, name, part)
    reference.eval()  # type: ignore[no-untyped-call]
    return reference


def _frozen(weight: nn.Parameter, dtype: torch.dtype | None) -> nn.Parameter:
    return nn.Parameter(weight.detach().to(dtype=dtype or weight.dtype, copy=True), requires_grad=False)


def has_same_vision(one: VicoInternVL, other: VicoInternVL) -> bool:
    """Whether two models' vision encoders have equal weights, so that one can encode tiles for both."""
    own, its = one.vision_tower.state_dict(), other.vision_tower.state_dict()
    return own.keys() == its.keys() and all(torch.equal(value, its[name]) for name, value in own.items())


def answer_states(
    model: VicoInternVL, batch: MicroBatch, vit_tokens: Tensor, compressed: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the last hidden states that predict the answer tokens, [answers, D], and the sample of each, [answers].

    Row i belongs to the micro-batch's i-th answer token under any routing, so two calls are aligned on the answers
    although their prompts differ in length.
    """
    num_tiles = len(batch.tiles)
    # Low before high, as in `connect`: with ZeRO-3 every process must call the same parts in the same order.
    idle = vit_tokens.new_zeros(())
    if model.connector_low is not None and not bool(compressed.any()):
        idle = idle + _idle(model, vit_tokens, low=True)
    visual = model.visual_tokens(vit_tokens[:num_tiles], compressed) if num_tiles else None
    if bool(compressed.all()):
        idle = idle + _idle(model, vit_tokens, low=False)
    counts = visual.counts if visual is not None else torch.zeros(0, dtype=torch.long)
    layout = batch.lay_out(counts)
    device = vit_tokens.device
    tokens = visual.tokens if visual is not None else vit_tokens.new_zeros(0, model.config.text_config.hidden_size)
    embeddings = model.embed(layout.input_ids.to(device), tokens) + idle
    packed = packed_inputs(model, layout.lengths, device)
    states = model.language_model.model(inputs_embeds=embeddings, use_cache=False, **packed)
    hidden = states.last_hidden_state[layout.row.to(device), layout.column.to(device)]
    return hidden, layout.sample.to(device)


def _idle(model: VicoInternVL, vit_tokens: Tensor, *, low: bool) -> Tensor:
    """Return zero, computed through a connector that no tile is routed to.

    Processes wait for each other's gradients (DDP) or weights (FSDP, ZeRO-3) of every part, so every part must be used
    in every micro-batch.
    """
    return 0.0 * model.visual_tokens(vit_tokens[:1], torch.tensor([low])).tokens.sum()


def _tiles(batch: MicroBatch, model: VicoInternVL) -> Tensor:
    """Return the micro-batch's normalised tiles, or a blank tile if it has none: every process must encode some."""
    if len(batch.tiles):
        return normalise(batch.tiles)
    side = model.config.tile_size
    return normalise(batch.tiles.new_zeros(1, side, side, 3))


def round_weights(part: nn.Module, dtype: torch.dtype) -> None:
    """Convert a part's weights to another precision. Buffers such as rotary frequencies keep theirs."""
    for parameter in part.parameters():
        parameter.data = parameter.data.to(dtype)
