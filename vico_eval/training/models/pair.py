"""The policy beside the frozen reference: one forward pass that both stages and the held-out report share.

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
    """How far the policy's answers are from the reference's, under each routing."""

    kl: Tensor
    """[routings, samples], nats, mean over a sample's answer tokens."""

    agreement: Tensor
    """[routings, samples], share of the answer tokens that both rank first."""

    vit_tokens: Tensor
    """[tiles, 1 + h*w, C], the policy's."""


class PolicyAndReference(nn.Module):
    """The policy and what it is to be consistent with.

    The reference is a copy of the weights that the policy started from, but for the vision encoder: while that is
    frozen both are the same module, and its output is computed once. There is no copy at all where the policy itself
    can give the reference's answers: trained with LoRA, without its adapters; and while nothing but the low connector
    is trained.
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
            reference: as `frozen_copy` makes it; None where the policy itself answers as the reference.
            adapters: the peft `LoraModel` around the policy's decoder; switched off for the reference's answers.
            chunk: answer tokens whose logits are in memory at once.
            most: the largest of all processes' numbers; for ZeRO-3, which wants the heads called equally often.
        """
        super().__init__()
        assert reference is None or adapters is None, "either a copy or adapters to leave out"
        self.policy = policy
        self.reference = reference
        self.chunk = chunk
        self._most = most
        # Not a submodule: its modules are those of the policy's decoder already.
        self._adapters = [adapters]

    @property
    def shares_vision(self) -> bool:
        """Whether both see the same vision tokens."""
        return self.reference is None or self.reference.vision_tower is self.policy.vision_tower

    def train(self, mode: bool = True) -> PolicyAndReference:
        """The reference stays in evaluation mode, and so does a vision encoder that is not trained."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()  # type: ignore[no-untyped-call]
        if self.shares_vision:
            self.policy.vision_tower.eval()
        return self

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of the decoders' and encoders' layers: what accelerate shards one by one with FSDP2."""
        models = [model for model in (self.policy, self.reference) if model is not None]
        stacks = [model.language_model.model.layers for model in models]
        stacks += [model.vision_tower.encoder.layer for model in models]
        return sorted({type(layer).__name__ for stack in stacks for layer in stack})

    def tie_weights(self) -> None:
        """Make embedding and head one again where they were; accelerate asks for it when it has moved the weights.

        Otherwise FSDP2 would train a head of its own in models that share it with the embedding (up to 4B).
        """
        for model in (self.policy, self.reference):
            if model is not None:
                model.tie_weights()

    def forward(self, batch: MicroBatch, routings: Sequence[Tensor]) -> Consistency:
        """The reference with every tile high, and the policy under each of `routings`, [tiles] bool each.

        Gradients reach the policy where autograd is on, and never the reference.
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
        """The reference and its head; adapters, where there are some, are off inside."""
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
    """A frozen copy of the policy as it is now, without ViCO's parts.

    Args:
        policy: before its training.
        train_vision: whether the policy's vision encoder will change; otherwise it is shared, not copied.
        dtype: of the copied weights; by default the policy's.
    """
    parts = {name: getattr(policy, name) for name in ("connector_low", "router", "image_router")}
    for name in parts:
        setattr(policy, name, None)
    try:
        shared = {} if train_vision else {id(policy.vision_tower): policy.vision_tower}
        own = (part for name, part in policy.named_children() if train_vision or name != "vision_tower")
        # In their own precision from the start: a whole copy in the policy's, rounded later, takes twice the memory.
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
    """Whether two models' vision encoders have the same weights, so that one can encode tiles for both."""
    own, its = one.vision_tower.state_dict(), other.vision_tower.state_dict()
    return own.keys() == its.keys() and all(torch.equal(value, its[name]) for name, value in own.items())


def answer_states(
    model: VicoInternVL, batch: MicroBatch, vit_tokens: Tensor, compressed: Tensor
) -> tuple[Tensor, Tensor]:
    """Last hidden states [answers, D] that predict the answer tokens, and the sample [answers] of each.

    Whatever the routing, row i belongs to the micro-batch's i-th answer token: two calls are aligned on the answers
    although their prompts differ in length.
    """
    num_tiles = len(batch.tiles)
    # Low before high, as in `connect`: with ZeRO-3 every process has to call the same parts in the same order.
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
    """Zero, by way of a connector that no tile takes.

    Processes that train together wait for each other's gradients (DDP) or weights (FSDP, ZeRO-3) of every part, so
    every part has to take part in every micro-batch.
    """
    return 0.0 * model.visual_tokens(vit_tokens[:1], torch.tensor([low])).tokens.sum()


def _tiles(batch: MicroBatch, model: VicoInternVL) -> Tensor:
    """The micro-batch's tiles, normalised; a blank one where it has none, because every process has to encode some."""
    if len(batch.tiles):
        return normalise(batch.tiles)
    side = model.config.tile_size
    return normalise(batch.tiles.new_zeros(1, side, side, 3))


def round_weights(part: nn.Module, dtype: torch.dtype) -> None:
    """Give a part's weights another precision. Buffers such as rotary frequencies keep theirs."""
    for parameter in part.parameters():
        parameter.data = parameter.data.to(dtype)
