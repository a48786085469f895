"""Summarising outcomes: throughput, percentiles, failures, and ratios with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vico_eval.bench.serve.answer import Outcome
from vico_eval.bench.serve.runner import LoadCell, Turn
from vico_eval.report.speed.ratio import Ratio, mean_ratio

PERCENTILES = (50, 90, 99)
MAX_FAILED_SHARE = 0.01
"""Cells with a larger share of failures are marked, because failed requests put no load on the server."""

MAX_WORDINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CellSummary:
    """The measurements of one server and setting."""

    cell: LoadCell
    num_requests: int
    """Number of answered and failed requests, without those in flight at a stop."""

    num_ok: int
    is_complete: bool
    failures: dict[str, dict[str, Any]]
    """By kind: the number of failures and their first distinct messages."""

    requests_per_s: float
    """First-token throughput: the number of successful requests, divided by the time from sending the first request to
    the last first token, summed over rounds."""

    prompt_tokens_per_s: float
    first_token_ms: dict[str, float]
    latency_ms: dict[str, float]
    inter_token_ms: dict[str, float]
    """Empty if answers have one token."""

    output_tokens: int
    rounds: dict[int, float]
    """First-token throughput of every complete round, requests/s."""

    client_busy: float
    """Share of the time in which this process was busy. Near 1, the client limits the measured numbers."""

    @property
    def is_sound(self) -> bool:
        """Whether it is complete and has few failures."""
        return self.is_complete and self.num_requests - self.num_ok <= MAX_FAILED_SHARE * self.num_requests

    def as_record(self) -> dict[str, Any]:
        """Return the values for the summary."""
        values = asdict(self) | {"server": self.cell.server, "setting": self.cell.setting.as_record()}
        del values["cell"]
        return values | {"is_sound": self.is_sound}


def summarize(cell: LoadCell, turns: Iterable[Turn], num_requests: int) -> CellSummary:
    """Summarise one cell.

    Args:
        cell: the cell.
        turns: all turns; those of other cells are ignored.
        num_requests: the planned number of requests.
    """
    own = [turn for turn in turns if turn.cell == cell]
    outcomes = [outcome for turn in own for outcome in turn.outcomes]
    good = [outcome for outcome in outcomes if not outcome.failure]
    seconds = sum(_span(turn) for turn in own)
    return CellSummary(
        cell=cell,
        num_requests=len(outcomes),
        num_ok=len(good),
        is_complete=len(outcomes) == num_requests,
        failures=_failures(outcomes),
        requests_per_s=_per_second(len(good), seconds),
        prompt_tokens_per_s=_per_second(sum(outcome.prompt_tokens or 0 for outcome in good), seconds),
        first_token_ms=_percentiles(good, lambda outcome: outcome.first_token_s),
        latency_ms=_percentiles(good, lambda outcome: outcome.latency_s),
        inter_token_ms=_percentiles(good, lambda outcome: outcome.inter_token_s),
        output_tokens=sum(outcome.output_tokens or 0 for outcome in good),
        client_busy=sum(turn.cpu_s for turn in own) / max(sum(turn.wall_s for turn in own), 1e-9),
        rounds={turn.round: _throughput(turn) for turn in own if turn.is_complete and _throughput(turn) > 0},
    )


def ratio(own: CellSummary, baseline: CellSummary) -> Ratio:
    """Return the first-token throughput relative to another cell's, over the rounds that are complete for both."""
    shared = sorted(own.rounds.keys() & baseline.rounds.keys())
    return mean_ratio([own.rounds[number] / baseline.rounds[number] for number in shared])


def _span(turn: Turn) -> float:
    """Return the seconds from sending the first request to the last first token; 0 if there is none."""
    ends = [outcome.first_token_at_s for outcome in turn.outcomes if not outcome.failure]
    return max(ends) - min(outcome.sent_s for outcome in turn.outcomes) if ends else 0.0


def _throughput(turn: Turn) -> float:
    return _per_second(sum(not outcome.failure for outcome in turn.outcomes), _span(turn))


def _per_second(number: int, seconds: float) -> float:
    return number / seconds if seconds else 0.0


def _percentiles(outcomes: Sequence[Outcome], value: Callable[[Outcome], float | None]) -> dict[str, float]:
    values = [known for known in map(value, outcomes) if known is not None]
    if not values:
        return {}
    found = np.percentile(values, PERCENTILES)
    return {f"p{percent}": 1000 * float(number) for percent, number in zip(PERCENTILES, found, strict=True)}


def _failures(outcomes: Iterable[Outcome]) -> dict[str, dict[str, Any]]:
    failed = [outcome for outcome in outcomes if outcome.failure]
    counts = Counter(outcome.failure for outcome in failed)
    return {
        kind: {
            "count": number,
            "words": list(dict.fromkeys(one.words for one in failed if one.failure == kind))[:MAX_WORDINGS],
        }
        for kind, number in counts.most_common()
    }
