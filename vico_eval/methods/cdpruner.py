"""CDPruner: of each tile, visual tokens that are unlike each other and close to the question enter the decoder.

Place:   selection.
Needs:   the question.
Source:  Zhang et al., NeurIPS 2025 (arXiv 2506.10967); kernel, min-max and greedy choice as in the released code. The
         kernel of a determinantal point process is the tokens' cosine, each side times its token's relevance; the
         choice makes its determinant large, one token after the other.
Differs: the released code takes relevance from CLIP's two towers, and its *negative*, which its authors explain by CLIP
         (CDPruner#14). InternVL has no text tower: here relevance is the cosine of a visual token behind the connector
         with the decoder's embeddings of the words that the user said (no template, no system message), mean over
         words, with the paper's positive sign; min-max over all tiles of the request, never over a batch. Nothing
         aligns these two kinds of vectors, so `relevance=none` (all 1) is the control that belongs beside it;
         `kernel=exp` takes exp(0.5 r) in place of r, an option in a comment of the release. Without words, or where all
         tokens are equally close, relevance is 1. Beyond the rank of the tokens the released code chooses by rounding
         errors and repeats tokens: here a token counts as spent once less than 1e-5 of it is new, and when all are, the
         most relevant of the others fill up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import QUESTION, ModelFacts, Selected, VisualTokens, Widths
from vico_eval.methods.shared.budgets import BudgetedSelection, KeepRatio
from vico_eval.methods.shared.cosines import cosines, unit
from vico_eval.methods.shared.groups import Groups, select_on_host
from vico_eval.runs.costs import ChoiceCosts

RELEVANCES = ("decoder", "none")
KERNELS = ("product", "exp")
EXP_ALPHA = 0.5
MIN_MAX_OFFSET = 1e-6
SPENT = 1e-5


@dataclass(frozen=True, kw_only=True)
class CDPrunerConfig(KeepRatio):
    """How many tokens, and what the question counts for."""

    relevance: str = "decoder"
    """decoder: cosine with the decoder's embeddings of the question's words; none: all tokens alike."""

    kernel: str = "product"
    """What each side of the kernel is multiplied by. product: relevance, as released; exp: exp(0.5 x relevance)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relevance not in RELEVANCES:
            raise ConfigError(f"cdpruner got relevance={self.relevance!r}; expected {' or '.join(RELEVANCES)}.")
        if self.kernel not in KERNELS:
            raise ConfigError(f"cdpruner got kernel={self.kernel!r}; expected {' or '.join(KERNELS)}.")
        if self.relevance == "none" and self.kernel != "product":
            raise ConfigError(
                f"cdpruner got relevance=none and kernel={self.kernel}; the kernel is what relevance goes into. Leave "
                "one of them out."
            )


class CDPruner(BudgetedSelection):
    """Keeps diverse and relevant tokens."""

    Config = CDPrunerConfig
    config: CDPrunerConfig

    @property
    def needs(self) -> frozenset[str]:
        """The question, unless it doesn't count."""
        return frozenset() if self.config.relevance == "none" else frozenset({QUESTION})

    @property
    def remark(self) -> str | None:
        """Whether the question is left out."""
        return "w/o question" if self.config.relevance == "none" else None

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """The cosines of n tokens, 2 D n^2, and with t words, 2 D n t.

        What the greedy choice adds in vectors, k^2 n for k that stay, is no product.
        """
        return (ChoiceCosts(pair=2 * widths.model, text_pair=2 * widths.model if self.needs else 0),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The greedy choice of every tile."""
        weights = [self._weights(visual) for visual in requests]

        def weigh(groups: Groups) -> tuple[Tensor, Tensor]:
            weight = groups.stack(weights)
            return weight[:, :, None] * cosines(groups.tokens) * weight[:, None, :], weight

        return select_on_host(requests, self.config, weigh, _choose)

    def _weights(self, visual: VisualTokens) -> Tensor:
        """What each token's side of the kernel is multiplied by, [n]."""
        tokens, words = visual.tokens, visual.question_embeddings
        if self.config.relevance == "none" or words is None or not len(words):
            return torch.ones(len(tokens), device=tokens.device)
        relevance = min_max(closeness(tokens, words.to(tokens.device)))
        return relevance if self.config.kernel == "product" else (EXP_ALPHA * relevance).exp()


def _choose(kernel: Tensor, weight: Tensor, num_keep: int) -> Tensor:
    return most_determinant(kernel, weight, num_keep).order


def closeness(tokens: Tensor, words: Tensor) -> Tensor:
    """Mean cosine [n], float32, of each token [n, D] with the words [M, D]."""
    return (unit(tokens) @ unit(words).T).mean(dim=1)


def min_max(values: Tensor) -> Tensor:
    """(value - lowest + 1e-6) / range of values [n], as released; all 1 where they are equal."""
    low, high = values.min(), values.max()
    return torch.where(high > low, (values - low + MIN_MAX_OFFSET) / (high - low), 1.0)


class Greedy(NamedTuple):
    """A greedy choice."""

    order: Tensor
    """[groups, k], int64, in the order of choosing: that of k tokens begins that of k + 1."""

    gains: Tensor
    """[groups, k], float32: by what each one multiplied the determinant; 0 for those that fill up."""


def most_determinant(kernel: Tensor, weight: Tensor, num_keep: int) -> Greedy:
    """The greedy choice that makes the determinant of the kernel's rows and columns large.

    By an incremental Cholesky factor: a token's gain is the part of it, squared, that those kept so far don't span.

    Args:
        kernel: [groups, n, n], positive semidefinite; on the CPU.
        weight: [groups, n], on the CPU, by which tokens fill up when nothing new is left.
        num_keep: k, 1..n.
    """
    between, importance = kernel.numpy(), weight.numpy().copy()
    num_groups, num_tokens = importance.shape
    every = np.arange(num_groups)
    whole = between.diagonal(axis1=1, axis2=2)
    gain = whole.copy()
    factor = np.zeros((num_groups, num_keep, num_tokens), dtype=between.dtype)
    order = np.empty((num_groups, num_keep), dtype=np.int64)
    gains = np.zeros((num_groups, num_keep), dtype=between.dtype)
    for step in range(num_keep):
        is_new = np.greater(gain, SPENT * whole)
        has_new = is_new.any(axis=1)
        picked = np.where(has_new, np.where(is_new, gain, -np.inf).argmax(axis=1), importance.argmax(axis=1))
        order[:, step] = picked
        gains[:, step] = np.where(has_new, gain[every, picked], 0)
        so_far = factor[:, :step]
        explained = np.matmul(so_far[every, :, picked][:, None], so_far)[:, 0]
        root = np.sqrt(np.where(has_new, gains[:, step], 1))[:, None]
        factor[:, step] = np.where(has_new[:, None], (between[every, picked] - explained) / root, 0)
        gain -= factor[:, step] ** 2
        gain[every, picked] = -np.inf
        importance[every, picked] = -np.inf
    return Greedy(torch.from_numpy(order), torch.from_numpy(gains))
