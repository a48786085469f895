"""Losses and labels against what a reader would write down first."""

from __future__ import annotations

import math

import pytest
import torch

from vico_eval.training.base import glyph_alignment
from vico_eval.training.consistency import LayoutHead, consistency_loss, layout_loss
from vico_eval.training.labels import PercentileWindow, loss_ratio
from vico_eval.training.router import auc, decision_scores, keep_labels, router_loss


def naive_consistency(reference, policy, document, num_documents):
    means = []
    for wanted in range(num_documents):
        tokens = []
        for i in range(len(document)):
            if int(document[i]) != wanted:
                continue
            p = [math.exp(float(x)) for x in reference[i]]
            q = [math.exp(float(x)) for x in policy[i]]
            p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
            tokens.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        means.append(sum(tokens) / len(tokens))
    return sum(means) / len(means)


def test_consistency_loss_equals_the_sum_written_out():
    generator = torch.Generator().manual_seed(0)
    reference, policy = torch.randn(2, 6, 5, generator=generator).unbind()
    # Three tokens, one and two: a mean over all six tokens would weigh the first document three times the second.
    document = torch.tensor([0, 0, 0, 1, 2, 2])
    expected = naive_consistency(reference, policy, document, 3)
    assert float(consistency_loss(reference, policy, document, 3)) == pytest.approx(expected, rel=1e-5)


def test_consistency_loss_is_from_the_reference_and_zero_for_equal_logits():
    # Reference (1/2, 1/2), policy (1/4, 3/4): KL(ref || policy) = ln 2 - ln(3) / 2 = 0.1438, not 0.1308.
    reference, policy = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    one = torch.tensor([0])
    assert float(consistency_loss(reference, policy, one, 1)) == pytest.approx(math.log(2) - math.log(3) / 2, rel=1e-5)
    assert float(consistency_loss(policy, policy, one, 1)) == pytest.approx(0, abs=1e-7)


def test_percentile_window_forgets_and_compares_with_what_it_holds():
    window = PercentileWindow(percentile=50, size=3)
    # Windows: [4], [4 1] median 2.5, [4 1 3] median 3, [1 3 2] median 2, [3 2 1.5] median 2.
    assert [window.keep(ratio) for ratio in (4, 1, 3, 2, 1.5)] == [True, False, True, True, False]
    assert window.threshold == 2


def test_keep_labels_starts_with_a_full_window():
    class Ratio:
        def __init__(self, ratio):
            self.ratio = ratio

    # Without the first window of 1..4 (60th percentile 2.8), the first label would be a comparison with itself.
    decisions = [Ratio(ratio) for ratio in (1.0, 2.0, 3.0, 4.0)]
    assert keep_labels(decisions, percentile=60, window=4).tolist() == [0, 0, 1, 1]


def test_about_k_percent_are_labelled_compress():
    ratios = torch.rand(4000, generator=torch.Generator().manual_seed(0)).tolist()
    window = PercentileWindow(percentile=60, size=500)
    kept = [window.keep(ratio) for ratio in ratios]
    assert 1 - sum(kept) / len(kept) == pytest.approx(0.6, abs=0.03)


def test_loss_ratio_stays_finite_and_ignores_rounding_below_zero():
    ratio = loss_ratio(torch.tensor([0.3, 0.0]), torch.tensor([0.0, -1e-9]), epsilon=0.1)
    assert ratio.tolist() == pytest.approx([4.0, 1.0])


def test_router_loss_is_the_cross_entropy_of_compress_and_means_tiles_of_one_image():
    class Router:
        def p_compress(self, vit_tokens):
            return vit_tokens[:, 0, 0]

    tokens = torch.tensor([0.9, 0.2, 0.4]).view(3, 1, 1)
    decision = torch.tensor([0, 1, 1])
    assert decision_scores(Router(), tokens, decision, 2).tolist() == pytest.approx([0.9, 0.3])
    # The first is to be compressed (label 0), the second kept: -(ln 0.9 + ln 0.7) / 2.
    losses = router_loss(Router(), tokens, decision, torch.tensor([0, 1]))
    assert float(losses["loss"]) == pytest.approx(-(math.log(0.9) + math.log(0.7)) / 2, rel=1e-5)
    assert float(losses["accuracy"]) == 1


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


def test_layout_loss_asks_each_low_token_for_the_square_of_slots_under_it():
    # Four by four slots, bytes 1..16 row by row; the low token of the top right square lies over 3, 4, 7, 8.
    glyphs = torch.arange(1, 17).view(1, 4, 4)
    asked = []

    class Spy(LayoutHead):
        def forward(self, low_tokens, embedding):
            logits = torch.full((1, 4, 4, 256), -50.0)
            for token, square in enumerate([[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]):
                for slot, byte in enumerate(square):
                    logits[0, token, slot, byte] = 50.0
            asked.append(low_tokens.shape)
            return logits

    assert float(layout_loss(Spy(8), torch.zeros(1, 4, 8), glyphs, torch.zeros(256, 8))) == pytest.approx(0, abs=1e-6)
    assert asked == [(1, 4, 8)]
