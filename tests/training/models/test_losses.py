"""The chunked consistency loss against a naive one written here."""

import pytest
import torch
from torch import nn

from vico_eval.training.models.losses import compare_answers
from vico_eval.training.models.measures import document_means


def naive(reference_logits, logits):
    reference, policy = reference_logits.softmax(-1), logits.softmax(-1)
    return (reference * (reference.log() - policy.log())).sum(-1)


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return nn.Linear(12, 50, bias=False).double(), nn.Linear(8, 50, bias=False).double()


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_losses_and_gradients_are_those_of_the_whole_logits(heads, chunk):
    reference_head, head = heads
    reference_hidden = torch.randn(7, 12, dtype=torch.double)
    hidden = torch.randn(7, 8, dtype=torch.double, requires_grad=True)
    expected = naive(reference_head(reference_hidden), head(hidden))
    wanted = torch.autograd.grad(expected.sum(), [hidden, head.weight])
    found = compare_answers(reference_hidden, reference_head, hidden, head, chunk=chunk)
    # Computed in float32.
    torch.testing.assert_close(found.kl, expected.float(), atol=1e-6, rtol=1e-5)
    gradients = torch.autograd.grad(found.kl.sum(), [hidden, head.weight])
    torch.testing.assert_close(gradients, wanted, atol=1e-6, rtol=1e-5)
    assert found.agrees.tolist() == (reference_head(reference_hidden).argmax(-1) == head(hidden).argmax(-1)).tolist()


def test_no_gradient_reaches_the_reference(heads):
    reference_head, head = heads
    hidden = torch.randn(3, 8, dtype=torch.double, requires_grad=True)
    reference_hidden = torch.randn(3, 12, dtype=torch.double, requires_grad=True)
    compare_answers(reference_hidden, reference_head, hidden, head, chunk=2).kl.sum().backward()
    grads = [reference_hidden.grad, reference_head.weight.grad, hidden.grad, head.weight.grad]
    assert [grad is None for grad in grads] == [True, True, False, False]


def test_no_more_than_a_chunk_of_logits_is_kept(heads):
    """Saved for the backward pass are hidden states, not [answers, V] logits."""
    reference_head, head = heads
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.shape) or tensor, lambda t: t):
        hidden = torch.randn(40, 8, dtype=torch.double, requires_grad=True)
        compare_answers(torch.randn(40, 12, dtype=torch.double), reference_head, hidden, head, chunk=4)
    assert max(shape[-1] for shape in saved if shape) <= 12
    assert max(shape[0] for shape in saved if len(shape) > 1) <= 4


def test_heads_are_called_as_often_as_asked_without_a_difference(heads):
    reference_head, head = heads
    calls = []
    head.register_forward_hook(lambda *_: calls.append(1))
    reference_hidden = torch.randn(7, 12, dtype=torch.double)
    hidden = torch.randn(7, 8, dtype=torch.double, requires_grad=True)
    found = []
    for num_chunks in (0, 5):
        calls.clear()
        kl = compare_answers(reference_hidden, reference_head, hidden, head, chunk=3, num_chunks=num_chunks).kl
        forward = len(calls)
        found.append((kl, *torch.autograd.grad(kl.sum(), [hidden, head.weight])))
        assert (forward, len(calls)) == (max(num_chunks, 3), 2 * max(num_chunks, 3))
    torch.testing.assert_close(found[0], found[1])


def test_a_long_answer_counts_as_much_as_a_short_one():
    values = torch.tensor([1.0, 3.0, 10.0])
    assert document_means(values, torch.tensor([0, 0, 1]), 2).tolist() == [2.0, 10.0]
