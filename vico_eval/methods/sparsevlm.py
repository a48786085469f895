"""SparseVLM: after several layers, the visual tokens that the question attends to least are removed or merged.

Place:   decoder, after layers 2, 6 and 15 (and 19 for `rank`) of 32; after the same shares of another depth.
Source:  SparseVLM (arXiv 2410.04417, ICML 2025) and its released code, which holds three variants: `topk` (v1.5, its
         default), `rank` (the first release: the rank of a matrix sets the number of tokens) and `plus` (v2.0: no
         merging, positions kept, and only the heads that attend to the image).
Differs: the released budgets are counts for LLaVA's 576 visual tokens in 32 layers; here, they are shares of a
         request's visual tokens. The released clustering draws noise to break ties; here, the earlier token counts as
         denser. All visual tokens of a request are ranked together, and the text after the last of them rates them.
         `target_ratio` is ours: the average over all decoder layers of the visual tokens a layer processes, merged ones
         included, as a share of those at the input; `ratio_from` sets it to the share that an earlier run measured on
         the document's benchmark. The first pruning layer and those before it process all visual tokens. For `topk` and
         `plus`, one factor, solved for the request's number of tokens, multiplies the shares of all pruning layers. The
         counts of `rank` are unknown before its last pruning layer. That layer spends what remains of the target. At
         earlier ones, a single factor that spends it multiplies the layer's own count and the counts that `topk` keeps
         in later layers. Ranks then decide in which layers tokens leave, but not how many. The released code does not
         handle M-RoPE, where `topk` and `rank` give every token its new number on all three axes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, pairwise, repeat

import torch
from torch import Tensor

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import DecoderPart, LayerState, ModelFacts, NextTokens, RequestPrompt, Widths
from vico_eval.methods.shared.earlier_run import TargetRatio
from vico_eval.methods.shared.joined_numbers import joined_numbers, rising_layers
from vico_eval.runs.costs import ChoiceCosts

RELEASED_TOKENS, RELEASED_LAYERS = 576, 32
LAYERS = {"topk": (2, 6, 15), "plus": (2, 6, 15), "rank": (2, 6, 15, 19)}
BUDGETS = {
    "topk": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "plus": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
RANK_SCALES = {192: (13.5, 0.0), 128: (9.0, 6.0), 64: (0.8, 0.0)}
LARGE = 10_000  # visual tokens of a request for which rounding is negligible
ROWS = 32  # raters whose attention is in memory at once: 64 MiB for 32 heads and 16,000 tokens


@dataclass(frozen=True, kw_only=True)
class SparseVLMConfig(TargetRatio):
    """Variant and token budget."""

    variant: str = "topk"
    """topk, rank or plus."""

    budget: int = 192
    """Row of the released table of budgets: 192, 128, 96 or 64 of 576 tokens (rank: not 96)."""

    layers: str | int | None = None
    """Layers after which tokens leave, counted from 0, as in 2/6/15; by default the released ones, scaled to the
    depth."""

    keep_shares: str | float | None = None
    """Share of all visual tokens that stays after each of the layers, as in 0.5/0.35/0.2; replaces budget."""

    plus_heads: int = 14
    """plus: number of attention heads that rate. The released number, for every model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in LAYERS:
            raise ConfigError(f"sparsevlm got variant={self.variant!r}; expected one of {', '.join(LAYERS)}.")
        known = RANK_SCALES if self.variant == "rank" else BUDGETS[self.variant]
        if self.budget not in known:
            raise ConfigError(
                f"sparsevlm got budget={self.budget} for variant {self.variant}; expected one of "
                f"{', '.join(map(str, known))}. For another number of tokens, pass target_ratio= or keep_shares=."
            )
        if self.variant == "rank" and self.keep_shares is not None:
            raise ConfigError(
                "sparsevlm's variant rank takes no keep_shares: how many tokens it keeps depends on the rank of each "
                "attention matrix. Choose topk or plus, or pass budget= or target_ratio=."
            )
        shares = joined_numbers("sparsevlm", "keep_shares", self.keep_shares)
        layers = rising_layers("sparsevlm", "layers", self.layers)
        if shares is not None and (max(shares) > 1 or not any(shares)):
            raise ConfigError(f"sparsevlm got keep_shares={self.keep_shares!r}; expected shares in [0, 1], not all 0.")
        expected = len(layers or LAYERS[self.variant])
        if self.variant != "rank" and len(self.shares) != expected:
            raise ConfigError(
                f"sparsevlm got {len(self.shares)} shares for {expected} layers; expected one per layer. Pass layers= "
                "and keep_shares= together."
            )
        if self.plus_heads < 1:
            raise ConfigError(f"sparsevlm got plus_heads={self.plus_heads}; expected at least 1.")

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the visual tokens that stays after each pruning layer, before scaling; for `rank`, that of topk."""
        given = joined_numbers("sparsevlm", "keep_shares", self.keep_shares)
        row = BUDGETS["topk" if self.variant == "rank" else self.variant][self.budget]
        return given or tuple(tokens / RELEASED_TOKENS for tokens in row)

    def pruning_layers(self, num_layers: int) -> tuple[int, ...]:
        """The layers after which tokens leave, ascending."""
        given = rising_layers("sparsevlm", "layers", self.layers)
        if given is not None:
            return given
        return tuple(round(layer * num_layers / RELEASED_LAYERS) for layer in LAYERS[self.variant])

    def share_behind(self, num_layers: int) -> dict[int, float]:
        """Layer -> share of all visual tokens that stays after it, before scaling; for `rank`, the expected share."""
        # In a very shallow decoder, pruning layers can coincide; the last share then counts. `rank` has one layer more
        # than topk has shares.
        return dict(zip(self.pruning_layers(num_layers), chain(self.shares, repeat(self.shares[-1])), strict=False))


class SparseVLM(DecoderPart):
    """Rates visual tokens by the question's attention to them, after several layers."""

    Config = SparseVLMConfig
    config: SparseVLMConfig

    @property
    def renumbers(self) -> bool:  # type: ignore[override]
        """The `plus` variant keeps positions; the others close the gaps."""
        return self.config.variant != "plus"

    def check(self, facts: ModelFacts) -> None:
        """Require a decoder deep enough, enough heads, and a target that can be reached."""
        layers = self.config.pruning_layers(facts.num_layers)
        if layers[-1] >= facts.num_layers - 1:
            raise ConfigError(
                f"sparsevlm prunes after layers {'/'.join(map(str, layers))}, but the decoder of {facts.checkpoint!r} "
                f"has {facts.num_layers} layers; expected 0 to {facts.num_layers - 2}, because pruning after the last "
                "layer saves nothing. Pass layers=."
            )
        if self.config.variant == "plus" and self.config.plus_heads > facts.num_heads:
            raise ConfigError(
                f"sparsevlm's variant plus lets plus_heads={self.config.plus_heads} heads rate, but the decoder of "
                f"{facts.checkpoint!r} has {facts.num_heads}. Pass fewer; the released code uses half of Qwen2-7B's."
            )
        self._check_target(facts.num_layers)

    def _check_target(self, num_layers: int) -> None:
        targets = {name: target for name, target in self.config.targets().items() if target != 1}
        if not targets:
            return
        whole = self.config.pruning_layers(num_layers)[0] + 1
        least = average_share(self.config, LARGE, num_layers, factor=0.0)
        most = average_share(self.config, LARGE, num_layers, factor=largest_factor(self.config))
        for name, target in targets.items():
            if target < least:
                raise ConfigError(
                    f"sparsevlm can't reach {name}: {whole} of {num_layers} layers process all visual tokens, so the "
                    f"average is at least {least:.3f}, merged tokens included. Expected at least that, or earlier "
                    "layers=."
                )
            # Every pruning layer removes at least one token.
            if target > most + len(self.config.shares) / LARGE:
                raise ConfigError(
                    f"sparsevlm can't reach {name}: a share of 0 can't be scaled up, so "
                    f"keep_shares={self.config.keep_shares!r} leaves at most {most:.3f} on average. Expected at most "
                    "that, or shares above 0."
                )

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers that follow the pruning layers; none if everything is to stay."""
        if self.config.ratio_from is None and self.config.target_ratio == 1:
            return set()
        return {n + 1 for n in self.config.pruning_layers(num_layers)}

    def choice_costs(self, facts: ModelFacts, widths: Widths) -> tuple[ChoiceCosts, ...]:
        """After each pruning layer, the queries of t raters, 2 D A t, and their logits with n tokens, 2 A n t.

        `plus` also divides by logits of vectors of ones, 4 h n t with heads of width h. At the first pruning layer, the
        raters are chosen by products of words and visual tokens, 2 D n t. All text is counted as raters, which
        overestimates; the distances among the few tokens to merge (a third of those that leave) are neglected.
        """
        head = widths.queries // facts.num_heads
        logits = 2 * widths.queries + (4 * head if self.config.variant == "plus" else 0)
        queries, choosing = 2 * widths.model * widths.queries, 2 * widths.model
        layers = sorted(self.layers(facts.num_layers))
        return tuple(
            ChoiceCosts(layer=layer, text=queries, text_pair=logits + (choosing if layer == layers[0] else 0))
            for layer in layers
        )

    def prepare(self, request: RequestPrompt) -> Tensor | None:
        """Positions of the text tokens that rate, chosen by the input embeddings.

        Returns:
            [raters], int64, negative: counted from the prompt's end. Text stays, so they hold in every layer. None if
                no text follows the visual tokens.
        """
        first = int(request.is_visual.nonzero()[-1]) + 1
        if first == len(request.is_visual):
            return None
        visual, text = request.embeddings[request.is_visual].float(), request.embeddings[first:].float()
        relevance = (visual @ text.T).softmax(dim=-1).mean(dim=0)  # [text]
        rates = relevance > relevance.mean()
        if not bool(rates.any()):
            rates = torch.ones_like(rates)
        return rates.nonzero()[:, 0] - len(rates)

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """The highest-scoring visual tokens, and new tokens merged from the best of the others."""
        config = self.config_of(state.key)
        if state.prepared is None or config.target_ratio == 1:
            return None
        visual = state.is_visual.nonzero()[:, 0]
        rows = state.prepared.to(visual.device) + len(state.is_visual)
        if self.config.variant == "plus":
            received = undistanced_attention(state, rows, visual)  # [heads, visual]
            score = received[received.sum(dim=1).topk(self.config.plus_heads).indices].mean(dim=0)
            num_keep = _scheduled(config, state)
        else:
            ratings = head_mean_attention(state, rows, visual)  # [raters, visual]
            score = ratings.mean(dim=0)
            num_keep = _scheduled(config, state) if config.variant == "topk" else _ranked(config, state, ratings)
        state.check_finite("rating", score)
        if num_keep == len(visual):
            return None
        # Stable: if scores are equal, the earlier token stays.
        order = score.sort(descending=True, stable=True).indices
        stays = ~state.is_visual
        stays[visual[order[:num_keep]]] = True
        keep = stays.nonzero()[:, 0]
        if self.config.variant == "plus":
            return NextTokens(keep)
        num_recycled, num_clusters = recycling(len(visual) - num_keep)
        recycled = state.hidden[visual[order[num_keep : num_keep + num_recycled]]]
        merged = cluster_means(recycled, num_clusters).to(state.hidden)
        behind = visual[order[:num_keep]].max() if num_keep else visual[0]
        places = keep.new_full((len(merged),), -1)
        return NextTokens(torch.cat([keep[keep <= behind], places, keep[keep > behind]]), merged)

    def config_of(self, key: str) -> SparseVLMConfig:
        """The configuration with the target of a document's benchmark."""
        return replace(self.config, target_ratio=self.config.target_of(key), ratio_from=None)


def _scheduled(config: SparseVLMConfig, state: LayerState) -> int:
    """Number of tokens that `topk` and `plus` keep."""
    num_visual, current = state.visual_tokens[0], state.visual_tokens[-1]
    share = config.share_behind(state.num_layers)[state.layer - 1]
    share *= solve_factor(config, num_visual, state.num_layers)
    return min(round(share * num_visual), current - 1)


def _ranked(config: SparseVLMConfig, state: LayerState, ratings: Tensor) -> int:
    """Number of tokens that `rank` keeps; all of them if the ratings have full rank."""
    num_visual, current = state.visual_tokens[0], state.visual_tokens[-1]
    keep = rank = int(torch.linalg.matrix_rank(ratings))
    if rank < current:
        scale, bias = RANK_SCALES[config.budget]
        keep = min(int((rank * scale + bias) * num_visual / RELEASED_TOKENS), current - 1)
    if config.target_ratio is None:
        return keep
    return keep_towards_target(config, state.visual_tokens, state.num_layers, keep)


def average_share(config: SparseVLMConfig, num_visual: int, num_layers: int, factor: float = 1.0) -> float:
    """Visual tokens that enter a layer, averaged over all layers, as a share of those at the input."""
    current, total = num_visual, 0
    for layer in range(num_layers):
        total += current
        share = config.share_behind(num_layers).get(layer)
        if share is not None:
            keep = min(round(factor * share * num_visual), current - 1)
            current = keep if config.variant == "plus" else going_on(current, keep)
    return total / (num_layers * num_visual)


@cache
def solve_factor(config: SparseVLMConfig, num_visual: int, num_layers: int) -> float:
    """Factor on the shares with which the average over layers is nearest to the target."""
    target = config.target_ratio
    if target is None:
        return 1.0
    low, high = 0.0, largest_factor(config)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if average_share(config, num_visual, num_layers, middle) < target else (low, middle)
    # Counts are integers, so one of the two neighbours is nearest.
    return min(low, high, key=lambda factor: abs(average_share(config, num_visual, num_layers, factor) - target))


def largest_factor(config: SparseVLMConfig) -> float:
    """Factor on the shares with which every share above 0 keeps everything."""
    return 1 / min(share for share in config.shares if share)


def keep_towards_target(config: SparseVLMConfig, visual_tokens: Sequence[int], num_layers: int, own: int) -> int:
    """Number of tokens `rank` keeps after a layer so that the average over layers is nearest to the target.

    Args:
        config: with a target.
        visual_tokens: [layers so far], visual tokens that each layer processed; the last one prunes.
        num_layers: layers of the decoder.
        own: number the layer would keep without a target, 0..visual_tokens[-1].
    """
    assert config.target_ratio is not None
    layer, num_visual, current = len(visual_tokens) - 1, visual_tokens[0], visual_tokens[-1]
    remaining = config.target_ratio * num_layers * num_visual - sum(visual_tokens)
    expected = {later: share for later, share in config.share_behind(num_layers).items() if later > layer}
    # Number of layers that process the tokens this pruning layer passes on, then of each later one.
    spans = [stop - start for start, stop in pairwise([layer, *expected, num_layers - 1])]
    wanted = [going_on(current, own)]
    for share in expected.values():
        wanted.append(going_on(wanted[-1], min(round(share * num_visual), wanted[-1] - 1)))
    factor = remaining / sum(span * tokens for span, tokens in zip(spans, wanted, strict=True))
    # The largest count that passes on no more than the goal. Even if none is kept, merged tokens go on.
    goal = round(factor * wanted[0])
    return max(0, bisect_right(range(current + 1), goal, key=lambda keep: going_on(current, keep)) - 1)


def going_on(current: int, keep: int) -> int:
    """Number of tokens that go on, merged ones included, if `keep` of the current ones are kept (`topk`, `rank`)."""
    return keep + recycling(current - keep)[1] if keep < current else current


def recycling(num_pruned: int) -> tuple[int, int]:
    """Number of pruned tokens that are merged, and number of tokens they are merged into."""
    num_recycled = int(0.3 * num_pruned) + 1
    return num_recycled, num_recycled // 10 + 1


def head_mean_attention(state: LayerState, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention weights [rows, columns], mean over heads."""
    return torch.cat([state.attention(part)[:, :, columns].mean(dim=0) for part in rows.split(ROWS)])


def undistanced_attention(state: LayerState, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention of each head to each column, [heads, columns], mean over rows, without distance effects (`plus`)."""
    sums = [
        without_distance(state.attention(part)[:, :, columns], state, part, columns).sum(dim=1)
        for part in rows.split(ROWS)
    ]
    return torch.stack(sums).sum(dim=0) / len(rows)


def without_distance(weights: Tensor, state: LayerState, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention weights divided by the logit that two vectors of ones would have at their distance (`plus`).

    Args:
        weights: [heads, rows, columns].
        state: the request's state before the layer.
        rows: [rows], int64, indices of the queries.
        columns: [columns], int64, indices of the keys.
    """
    cos, sin = state.cos, state.sin
    # cos a cos b + sin a sin b = cos(a - b); the tables hold every frequency twice.
    logits: Tensor = (cos[rows] @ cos[columns].T + sin[rows] @ sin[columns].T) * cos.shape[-1] ** -0.5
    return weights / logits


def cluster_means(tokens: Tensor, num_clusters: int) -> Tensor:
    """Means of density-peak clusters.

    Args:
        tokens: [tokens, D]; if densities are equal, the earlier token counts as denser.
        num_clusters: 1..tokens.

    Returns:
        [num_clusters, D], float32, the clearest peak first.
    """
    tokens = tokens.float()
    # Subtraction instead of a matrix product: distances are then exactly symmetric, and equal densities exactly equal.
    distances = torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist") * tokens.shape[1] ** -0.5
    nearest = distances.topk(num_clusters, largest=False).values
    density = (-nearest.square().mean(dim=-1)).exp()
    number = torch.arange(len(tokens), device=tokens.device)
    is_denser = (density > density[:, None]) | ((density == density[:, None]) & (number < number[:, None]))
    isolation = distances.masked_fill(~is_denser, float("inf")).min(dim=-1).values  # to the nearest denser token
    # The densest token has no denser one. Any value of at least its own largest distance makes it the first centre.
    isolation = isolation.where(is_denser.any(dim=-1), distances.max())
    centres = (density * isolation).sort(descending=True, stable=True).indices[:num_clusters]
    cluster = distances[:, centres].min(dim=-1).indices
    cluster[centres] = number[:num_clusters]
    is_member = torch.nn.functional.one_hot(cluster, num_clusters).T.float()  # [clusters, tokens]
    return is_member @ tokens / is_member.sum(dim=-1, keepdim=True)
