"""Operations and cache size of a run's requests, from their token accounts and the cost coefficients in its record."""

from collections.abc import Sequence

import numpy as np

from vico_eval.runs.costs import ChoiceCosts, ModelCosts
from vico_eval.runs.results import Document
from vico_eval.runs.schema import RunRecord, TokenAccount

COUNTS = ("encoder_operations", "connector_operations", "selection_operations", "decoder_operations", "cache_bytes")
"""Columns of `Measurements.cells`, summed over documents."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per number, by a record's dtype."""


def count_costs(record: RunRecord, documents: Sequence[Document]) -> dict[str, float]:
    """Prefill operations by stage, and the key/value cache size at the end of the answer, summed over documents.

    The encoder's operations include a router that scores tiles. The selection's are the method's own operations to
    choose tokens, in any place.

    Returns:
        The columns `COUNTS`; NaN unless the record has the model's costs (for the selection, also the method's) and
        every document has accounts.
    """
    accounts = [account for document in documents for account in document.account or ()]
    if record.costs is None or not accounts or any(document.account is None for document in documents):
        return dict.fromkeys(COUNTS, float("nan"))
    return _counted(record.costs, accounts, _BYTES.get(record.dtype or "", float("nan")))


def _counted(costs: ModelCosts, accounts: Sequence[TokenAccount], num_bytes: float) -> dict[str, float]:
    visual = np.array([account.visual_tokens_per_layer for account in accounts], dtype=float)  # [requests, layers]
    text, generated, tiles, compressed, scored = np.array(
        [
            (
                account.text_tokens,
                account.generated_tokens,
                account.tiles,
                account.compressed_tiles,
                0 if account.p_compress is None else account.tiles,
            )
            for account in accounts
        ],
        dtype=float,
    ).T
    tokens = visual + text[:, None]
    heads = costs.head * len(accounts)
    selection = float("nan")
    if costs.choices is not None:
        selection = sum(
            _before_decoder(choice, accounts) if choice.layer is None else _in_decoder(choice, visual, text)
            for choice in costs.choices
        )
    return {
        "encoder_operations": float(costs.encoder * tiles.sum() + costs.router * scored.sum()),
        "connector_operations": float(costs.high * (tiles - compressed).sum() + costs.low * compressed.sum()),
        "selection_operations": selection,
        "decoder_operations": float(costs.token * tokens.sum() + costs.pair * (tokens**2).sum() + heads),
        "cache_bytes": float(num_bytes * costs.cached * (tokens.sum() + visual.shape[1] * generated.sum())),
    }


def _in_decoder(choice: ChoiceCosts, visual: np.ndarray, text: np.ndarray) -> float:
    """Operations of a selection between layers, over requests whose tokens change there.

    Args:
        choice: costs of the selection.
        visual: [requests, layers], visual tokens in each layer.
        text: [requests], text tokens.
    """
    assert choice.layer is not None, "the caller passes selections inside the decoder"
    before = visual[:, choice.layer - 1]
    is_asked = before != visual[:, choice.layer]
    return _operations(choice, (before + text)[is_asked], text[is_asked])


def _before_decoder(choice: ChoiceCosts, accounts: Sequence[TokenAccount]) -> float:
    sizes, text = [], []
    for account in accounts:
        groups = _groups(account, choice.group)
        sizes += groups
        text += [account.text_tokens] * len(groups)
    return _operations(choice, np.array(sizes, dtype=float), np.array(text, dtype=float))


def _groups(account: TokenAccount, by: str) -> list[float]:
    """Visual tokens from the connector, for each tile or image; averages if the account has no details."""
    made = account.visual_tokens_before_selection or account.visual_tokens
    if not account.tiles or not made:
        return []
    num_low = account.compressed_tiles
    full = account.visual_tokens_uncompressed / account.tiles
    low = (made - full * (account.tiles - num_low)) / num_low if num_low else full
    is_low = set(range(num_low) if account.compressed is None else account.compressed)
    tiles = [low if place in is_low else full for place in range(account.tiles)]
    if by == "tile":
        return tiles
    groups, start = [], 0
    for *_, number in account.grids or ((1, 1, account.tiles),):
        groups.append(sum(tiles[start : start + number]))
        start += number
    return groups


def _operations(choice: ChoiceCosts, tokens: np.ndarray, text: np.ndarray) -> float:
    """Operations summed over groups, given their sizes [groups] and their prompts' text tokens [groups]."""
    of_group = (
        choice.once
        + choice.token * tokens
        + choice.pair * tokens**2
        + choice.text * text
        + choice.text_pair * tokens * text
    )
    return float(of_group.sum())
