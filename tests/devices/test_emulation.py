"""The emulated accelerator refuses and counts what the other tests rely on."""

import pytest
import torch

from .emulation import ACCELERATOR, SECOND, emulated

ONES = torch.ones(3, 4)


@pytest.fixture
def emulation():
    with emulated() as running, torch.no_grad():
        yield running


def test_values_come_back_as_the_cpu_computes_them(emulation):
    there = ONES.to(ACCELERATOR)
    product = (there @ there.T).cumsum(dim=1)
    assert (str(product.device), product.shape) == (ACCELERATOR, (3, 3))
    assert product[1].tolist() == [4, 8, 12]
    product[0] = 2
    product[:, 1] += 1
    assert product.cpu().tolist() == [[2, 3, 2], [4, 9, 12], [4, 9, 12]]


@pytest.mark.parametrize(
    "mix",
    [
        lambda there: there + ONES,
        lambda there: there @ torch.ones(4, 2, device=SECOND),
        lambda there: torch.cat([there, there.to(SECOND)]),
        lambda there: ONES[torch.zeros(1, dtype=torch.long, device=ACCELERATOR)],
        lambda there: there[torch.zeros(1, dtype=torch.long, device=SECOND)],
        lambda there: there.masked_fill(ONES > 0, 1),
        lambda there: torch.where(ONES > 0, there, 0),
        lambda there: torch.nn.functional.linear(there, ONES),
        lambda there: there.numpy(),
    ],
)
def test_devices_do_not_mix(emulation, mix):
    there = ONES.to(ACCELERATOR)
    with pytest.raises((RuntimeError, TypeError), match=r"one device|CPU first"):
        mix(there)


@pytest.mark.parametrize(
    ("read", "waits"),
    [
        (lambda there: there + 1, 0),
        (lambda there: there[1:, torch.tensor([0, 1])].sum(), 0),
        (lambda there: there.to(SECOND), 0),
        (lambda there: bool((there > 0).any()), 1),
        (lambda there: there.cpu(), 1),
        (lambda there: there.sum().item(), 1),
        (lambda there: there[there > 0], 1),
        (lambda there: there.nonzero(), 1),
        (lambda there: torch.equal(there, there), 1),
        (lambda there: there.long()[0].bincount().tolist(), 2),
    ],
)
def test_the_host_waits_only_for_values(emulation, read, waits):
    read(ONES.to(ACCELERATOR))
    assert emulation.waits.total() == waits
