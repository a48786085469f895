"""Methods on one loaded model: each in an engine of its own, one after the other, or all in one that answers in a pass.

Weights are loaded before either, so that loading is in neither time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from vico_eval.bench.measurements.two_ways import Answered, Said
from vico_eval.engine.engine import Engine
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import Request
from vico_eval.errors import DocumentError
from vico_eval.families.family import FamilyModel
from vico_eval.methods.registry import Method


@dataclass(frozen=True, kw_only=True)
class EngineRows:
    """Methods that cut pictures alike, their model, and what they are asked."""

    model: FamilyModel
    tokenizer: PreTrainedTokenizerBase
    preprocessor: Callable[[], Preprocessor]
    """Makes one for each engine: it keeps the films that it has read last, which an engine alone would have to read."""

    methods: Mapping[str, Method]
    """By the row's name."""

    requests: Sequence[Request]
    batch_size: int

    def warm_up(self) -> None:
        """Answer one request by one method: kernels are chosen and memory is taken then."""
        self._answer(list(self.methods)[:1], self.requests[:1])

    def separate(self) -> Answered:
        """Row after row."""
        rows: dict[str, dict[object, Said]] = {}
        for row in self.methods:
            rows |= self._answer([row], self.requests)
        return Answered(rows=rows)

    def shared(self) -> Answered:
        """All rows in one pass."""
        return Answered(rows=self._answer(list(self.methods), self.requests))

    def _answer(self, rows: Sequence[str], requests: Sequence[Request]) -> dict[str, dict[object, Said]]:
        methods = [self.methods[row] for row in rows]
        engine = Engine(self.model, self.tokenizer, self.preprocessor(), methods, batch_size=self.batch_size)
        said: dict[str, dict[object, Said]] = {row: {} for row in rows}
        for row, _, outcome in engine.row_outcomes(requests, known=[()] * len(rows)):
            if isinstance(outcome, DocumentError):
                raise outcome
            assert outcome.seconds is not None, "an engine says what its answers took"
            said[rows[row]][outcome.key] = Said(outcome, outcome.seconds)
        return said
