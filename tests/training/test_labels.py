"""Losses and labels against what a reader would write down first."""

from __future__ import annotations

import pytest
import torch

from vico_eval.training.labels import PercentileWindow, loss_ratio
from vico_eval.training.models.measures import auc
from vico_eval.training.router import decision_scores
from vico_eval.training.small.vico_tiny.base import glyph_alignment


def test_percentile_window_forgets_and_compares_with_what_came_before():
    window = PercentileWindow(percentile=50, size=3)
    # Before each: nothing, [4], [4 1] median 2.5, [4 1 3] median 3, [1 3 3] median 3.
    assert [window.keep(ratio) for ratio in (4, 1, 3, 3, 2)] == [None, False, True, True, False]
    assert window.threshold == 3


def test_about_k_percent_are_labelled_compress():
    ratios = torch.rand(4000, generator=torch.Generator().manual_seed(0)).tolist()
    window = PercentileWindow(percentile=60, size=500)
    kept = [bool(window.keep(ratio)) for ratio in ratios]
    assert 1 - sum(kept) / len(kept) == pytest.approx(0.6, abs=0.03)


def test_loss_ratio_stays_finite_and_ignores_rounding_below_zero():
    ratio = loss_ratio(torch.tensor([0.3, 0.0]), torch.tensor([0.0, -1e-9]), epsilon=0.1)
    assert ratio.tolist() == pytest.approx([4.0, 1.0])


def first_token(vit_tokens):
    """A router whose logits are a tile's first two numbers."""
    return vit_tokens[:, 0]


def test_a_decision_about_several_tiles_is_the_mean_of_theirs():
    p = torch.tensor([0.9, 0.2, 0.4])
    tokens = torch.stack([p, 1 - p], dim=-1).log()[:, None]
    found = decision_scores(first_token, tokens, torch.tensor([0, 1, 1]), 2).exp()
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.1], [0.3, 0.7]]))


@pytest.mark.parametrize("num_tiles", [1, 2])
def test_a_probability_that_is_rounded_to_one_keeps_its_gradient(num_tiles):
    logits = torch.tensor([[[40.0, 0.0]]] * num_tiles, dtype=torch.bfloat16, requires_grad=True)
    log_p = decision_scores(first_token, logits, torch.zeros(num_tiles, dtype=torch.long), 1)
    assert float(log_p[0, 0].exp()) == 1
    assert float(log_p[0, 1]) == pytest.approx(-40)
    (gradient,) = torch.autograd.grad(-log_p[0, 1], logits)
    # Of the loss of "keep" with respect to a logit: p_compress and p_keep - 1, shared by the tiles.
    torch.testing.assert_close(gradient.sum(dim=(0, 1)).float(), torch.tensor([1.0, -1.0]))


def test_auc_counts_pairs_in_the_right_order():
    # Positives 0.9 and 0.4, negatives 0.4 and 0.1: of four pairs three are right and one is a tie.
    scores, positive = torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([True, True, False, False])
    assert auc(scores, positive) == pytest.approx(3.5 / 4)


def test_alignment_is_smallest_where_a_token_points_at_its_glyph():
    embedding = torch.eye(256)[:, :256]
    glyphs = torch.tensor([[65, 0, -1]])
    tokens = torch.zeros(1, 3, 256)
    tokens[0, 0, 65] = 7
    right = glyph_alignment(tokens, glyphs, embedding)
    tokens[0, 0, 65], tokens[0, 0, 66] = 0, 7
    assert float(right) < 0.05 < 5 < float(glyph_alignment(tokens, glyphs, embedding))
