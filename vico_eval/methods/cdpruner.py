"""CDPruner: within each tile, keep visual tokens that differ from each other and are relevant to the question.

Place:   selection.
Needs:   the question.
Source:  Zhang et al., NeurIPS 2025 (arXiv 2506.10967); kernel, min-max scaling and greedy choice follow the released
         code. The kernel of the determinantal point process is the cosine of two tokens times the relevance of each.
         Tokens are added one by one so that the kernel's determinant stays large.
Differs: the released code takes relevance from CLIP's two towers and negates it, which its authors attribute to CLIP
         (CDPruner#14). InternVL has no text tower. Here, relevance is the mean cosine of a visual token after the
         connector with the decoder's embeddings of the words in the user's question (without template or system
         message), with the paper's positive sign. Min-max scaling covers all tiles of the request and never a batch.
         Nothing aligns these two kinds of vectors, so `relevance=none` (1 for every token) is the control to report
         beside it. `kernel=exp` uses exp(0.5 r) in place of r, an option mentioned in a comment of the released code.
         Relevance is 1 if the question has no words or all tokens are equally close to it. Once the kept tokens span
         all others, the released code chooses by rounding errors and repeats tokens. Here, a token is spent once its
         gain is at most 1e-5 of its initial gain; when all are spent, the most relevant of the remaining tokens fill
         the budget. Without relevance all first gains are equal; the released code then begins with a token that
         rounding errors choose, and this one with the first token.
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
    """Token budget, and how relevance to the question enters."""

    relevance: str = "decoder"
    """decoder: cosine with the decoder's embeddings of the question's words; none: 1 for every token."""

    kernel: str = "product"
    """Factor on each side of the kernel. product: the relevance r, as released; exp: exp(0.5 r)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relevance not in RELEVANCES:
            raise ConfigError(f"cdpruner got relevance={self.relevance!r}; expected {' or '.join(RELEVANCES)}.")
        if self.kernel not in KERNELS:
            raise ConfigError(f"cdpruner got kernel={self.kernel!r}; expected {' or '.join(KERNELS)}.")
        if self.relevance == "none" and self.kernel != "product":
            raise ConfigError(
                f"cdpruner got relevance=none and kernel={self.kernel}; the kernel only sets how relevance is applied. "
                "Omit one of them."
            )


class CDPruner(BudgetedSelection):
    """Keeps diverse and relevant tokens."""

    Config = CDPrunerConfig
    config: CDPrunerConfig

    @property
    def needs(self) -> frozenset[str]:
        """The question, unless relevance is none."""
        return frozenset() if self.config.relevance == "none" else frozenset({QUESTION})

    @property
    def remark(self) -> str | None:
        """ "w/o question" if relevance is none."""
        return "w/o question" if self.config.relevance == "none" else None

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """Cosines of n tokens, 2 D n^2, and cosines with t question words, 2 D n t.

        The greedy choice of k tokens adds k^2 n in vector operations. These are not matrix products and are not
        counted.
        """
        return (ChoiceCosts(pair=2 * widths.model, text_pair=2 * widths.model if self.needs else 0),)

    def select(self, requests: Sequence[VisualTokens]) -> list[Selected | None]:
        """The greedy choice in every tile."""
        weights = [self._weights(visual) for visual in requests]

        def weigh(groups: Groups) -> tuple[Tensor, Tensor]:
            weight = groups.stack(weights)
            between = cosines(groups.tokens)
            # Rounding, which depends on the batch, moves the last bit of a cosine of a token with itself. Without
            # relevance all first gains are equal, and that bit would choose the first token.
            between.diagonal(dim1=1, dim2=2).round_()
            return weight[:, :, None] * between * weight[:, None, :], weight

        return select_on_host(requests, self.config, weigh, _choose)

    def _weights(self, visual: VisualTokens) -> Tensor:
        """Factor of each token on its side of the kernel, [n]."""
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
    """(value - minimum + 1e-6) / range of values [n], as released; 1 everywhere if all values are equal."""
    low, high = values.min(), values.max()
    return torch.where(high > low, (values - low + MIN_MAX_OFFSET) / (high - low), 1.0)


class Greedy(NamedTuple):
    """The result of a greedy choice."""

    order: Tensor
    """[groups, k], int64, in the order of choosing; a larger budget extends the same sequence."""

    gains: Tensor
    """[groups, k], float32: factor by which each token multiplied the determinant; 0 for tokens that fill the
    budget."""


def most_determinant(kernel: Tensor, weight: Tensor, num_keep: int) -> Greedy:
    """The greedy choice that makes the determinant of the kernel's rows and columns large.

    Uses an incremental Cholesky factor. A token's gain is the squared norm of its component orthogonal to the tokens
    kept so far.

    Args:
        kernel: [groups, n, n], positive semidefinite; on the CPU.
        weight: [groups, n], on the CPU; decides which tokens fill the budget once no gain is left.
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
