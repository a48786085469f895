"""Operations of a method's own computations to choose tokens, which `flops.py` leaves out.

PyTorch's own counter covers the matrix products. All other kernels count one operation for each number that they read
or write, whichever is more. Loops in NumPy, which PyTorch doesn't see, have one formula each.

Shapes: C = vision width; N = patches of a tile without the class token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vico_eval.bench.flops import flop_counter, score_flops
from vico_eval.bench.random_visual import TILE_TOKENS
from vico_eval.families.encoder_attention import CLS
from vico_eval.stages import METHOD, observed_by

PICKING = frozenset({"aten::index", "aten::index_select", "aten::gather", "aten::take", "aten::embedding"})
"""Kernels that read only as many numbers as they write."""

SOFTMAX = 5
"""Operations per number: maximum, difference, exponential, sum, quotient."""


class _Numbers(TorchDispatchMode):
    """Counts the numbers that kernels read or write."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            seen = made if func.name().partition(".")[0] in PICKING else (args, kwargs, made)
            self.total += max((leaf.numel() for leaf in tree_leaves(seen) if isinstance(leaf, Tensor)), default=0)
        return made


def counted_operations(work: Callable[[], object]) -> int:
    """Count the operations in the method's own stage (`vico_eval.stages.METHOD`) while `work` runs."""
    total = 0

    @contextmanager
    def count(name: str) -> Iterator[None]:
        nonlocal total
        if name != METHOD:
            yield
            return
        with flop_counter() as products, _Numbers() as numbers:
            yield
        total += products.get_total_flops() + numbers.total

    with observed_by(count):
        work()
    return total


def loop_operations(method: str, num_tokens: int, num_keep: int) -> int:
    """Return the operations of the method's NumPy loop over one image's tokens; 0 if it has no such loop.

    Keeping k of a group of n tokens takes k steps. DivPrune's group is the image: it copies and searches n^2 distances,
    and each step reads n distances twice. CDPruner's group is a tile: step t multiplies t - 1 rows of n numbers by
    weights and sums them, and reads n numbers ten times.

    Args:
        method: the method's name.
        num_tokens: the image's tokens; whole tiles, or one smaller tile.
        num_keep: the number of tokens that the method keeps in total.
    """
    num_tiles = max(1, num_tokens // TILE_TOKENS)
    if method == "divprune":
        return 2 * num_tokens**2 + 2 * num_keep * num_tokens
    if method == "cdpruner":
        group, keep = num_tokens // num_tiles, num_keep // num_tiles
        return num_tiles * group * (keep * (keep - 1) + 10 * keep)
    return 0


def score_operations(vision_config: Any, num_patches: int, rows: str) -> int:
    """Return the operations of one tile's encoder scores, which `LayerInput` adds to the layer.

    Besides the products (`score_flops`), each head scales r (1 + N) numbers, for r rows (`cls`: 1, `mean`: N), and
    computes their softmax and mean. The mean of the keys takes N C operations.

    Args:
        vision_config: InternViT's configuration.
        num_patches: N.
        rows: `cls` or `mean`.
    """
    wide, heads = vision_config.hidden_size, vision_config.num_attention_heads
    count = 1 if rows == CLS else num_patches
    logits = count * (1 + num_patches)
    products = score_flops(vision_config, num_patches, count)
    return int(products + (SOFTMAX + 2) * heads * logits + num_patches * wide)
