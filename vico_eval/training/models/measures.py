"""Averages and measures shared by the training stages and the small trainings."""

from __future__ import annotations

import torch
from torch import Tensor


def document_means(values: Tensor, document: Tensor, num_documents: int) -> Tensor:
    """Return the mean of each document's values.

    Args:
        values: [n, ...].
        document: [n], int64: the document of each value; every document has at least one.

    Returns:
        [docs, ...].
    """
    sums = values.new_zeros(num_documents, *values.shape[1:]).index_add(0, document, values)
    counts = torch.bincount(document, minlength=num_documents)
    return sums / counts.view(-1, *[1] * (values.ndim - 1))


def auc(scores: Tensor, positive: Tensor) -> float:
    """Return the area under the ROC curve: the probability that a positive scores above a negative, ties counted half.

    Args:
        scores: [n].
        positive: [n], bool, with at least one of each.
    """
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())
