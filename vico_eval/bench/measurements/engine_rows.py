"""Methods on one loaded model: each in a separate engine, one after another, or all in one engine with a shared pass.

Weights are loaded in advance, so that neither time includes loading.
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
    """Methods with the same tiling, their model, and the requests that they answer."""

    model: FamilyModel
    tokenizer: PreTrainedTokenizerBase
    preprocessor: Callable[[], Preprocessor]
    """Makes a new preprocessor for each engine, because preprocessors cache recent videos, which a separate engine
    would have to read again."""

    methods: Mapping[str, Method]
    """The methods by row name."""

    requests: Sequence[Request]
    batch_size: int

    def warm_up(self) -> None:
        """Answer one request with one method, so that kernels are chosen and memory is allocated."""
        self._answer(list(self.methods)[:1], self.requests[:1])

    def separate(self) -> Answered:
        """Answer all requests row by row."""
        rows: dict[str, dict[object, Said]] = {}
        for row in self.methods:
            rows |= self._answer([row], self.requests)
        return Answered(rows=rows)

    def shared(self) -> Answered:
        """Answer all requests for all rows in one pass."""
        return Answered(rows=self._answer(list(self.methods), self.requests))

    def _answer(self, rows: Sequence[str], requests: Sequence[Request]) -> dict[str, dict[object, Said]]:
        methods = [self.methods[row] for row in rows]
        engine = Engine(self.model, self.tokenizer, self.preprocessor(), methods, batch_size=self.batch_size)
        said: dict[str, dict[object, Said]] = {row: {} for row in rows}
        for row, _, outcome in engine.row_outcomes(requests, known=[()] * len(rows)):
            if isinstance(outcome, DocumentError):
                raise outcome
            assert outcome.seconds is not None, "the engine records the time of each answer"
            said[rows[row]][outcome.key] = Said(outcome, outcome.seconds)
        return said
