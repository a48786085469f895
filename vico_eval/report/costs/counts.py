"""Operations and cache of a run's requests, from their token accounts and the formulas' coefficients in its record."""

from collections.abc import Sequence

import numpy as np

from vico_eval.runs.results import Document
from vico_eval.runs.schema import ModelCosts, RunRecord, TokenAccount

COUNTS = ("encoder_operations", "connector_operations", "decoder_operations", "cache_bytes")
"""Columns of `Measurements.cells`, summed over documents."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a number, by a record's dtype."""


def count_costs(record: RunRecord, documents: Sequence[Document]) -> dict[str, float]:
    """Operations of prefill by stage, and the key/value cache at the end of the answer, summed over documents.

    Of the encoder those of the router are part, where it scores tiles. What a method itself computes to choose tokens
    is not in them: the time that rows take has it.

    Returns:
        The columns `COUNTS`; NaN unless the record has the model's costs and every document accounts.
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
    return {
        "encoder_operations": float(costs.encoder * tiles.sum() + costs.router * scored.sum()),
        "connector_operations": float(costs.high * (tiles - compressed).sum() + costs.low * compressed.sum()),
        "decoder_operations": float(costs.token * tokens.sum() + costs.pair * (tokens**2).sum() + heads),
        "cache_bytes": float(num_bytes * costs.cached * (tokens.sum() + visual.shape[1] * generated.sum())),
    }
