"""Operations of what a method itself computes to choose tokens, which `flops.py` leaves out.

PyTorch's own counter has the matrix products; of everything else an operation is counted for each number that a kernel
reads or writes, whichever are more. PyTorch doesn't see loops in NumPy, which have a formula each.

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
"""Kernels that read no more than they write."""

SOFTMAX = 5
"""Operations for each number: maximum, difference, exponential, sum, quotient."""


class _Numbers(TorchDispatchMode):
    """Counts numbers that kernels read or write."""

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
    """Operations in the method's own stage (`vico_eval.stages.METHOD`) while `work` runs."""
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
    """Operations of the method's loop in NumPy over one image's tokens; 0 if it has none.

    In a group of n tokens of which k stay, k steps. DivPrune, whose group is the image: n^2 distances are copied and
    searched, and a step looks twice at n distances. CDPruner, tile by tile: the step after t others multiplies t rows
    of n by weights and adds them up, and looks ten times at n numbers.

    Args:
        method: name.
        num_tokens: of the image; whole tiles, or one smaller tile.
        num_keep: of them all.
    """
    num_tiles = max(1, num_tokens // TILE_TOKENS)
    if method == "divprune":
        return 2 * num_tokens**2 + 2 * num_keep * num_tokens
    if method == "cdpruner":
        group, keep = num_tokens // num_tiles, num_keep // num_tiles
        return num_tiles * group * (keep * (keep - 1) + 10 * keep)
    return 0


def score_operations(vision_config: Any, num_patches: int, rows: str) -> int:
    """Operations of the encoder's scores of one tile: what `LayerInput` adds to the layer.

    Beside the products (`score_flops`), with r rows (`cls`: 1, `mean`: N), in each head scale, softmax and mean of
    r (1 + N) numbers, and the keys' mean, N C.

    Args:
        vision_config: of InternViT.
        num_patches: N.
        rows: `cls` or `mean`.
    """
    wide, heads = vision_config.hidden_size, vision_config.num_attention_heads
    count = 1 if rows == CLS else num_patches
    logits = count * (1 + num_patches)
    products = score_flops(vision_config, num_patches, count)
    return int(products + (SOFTMAX + 2) * heads * logits + num_patches * wide)
