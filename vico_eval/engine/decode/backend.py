"""A decoder for prompts that are already embedded, many at once: vLLM in this process or behind servers.

Everything before the decoder is computed here (encoder, router, connector, selection); prompts are sent as embeddings.

Shapes: N = tokens of a prompt, including visual ones; D = decoder width.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from vico_eval.engine.requests import GenerationSettings
from vico_eval.errors import ConfigError

T = TypeVar("T")

ENDED = ("stop", "length")
"""vLLM's finish reasons of complete answers; `abort` comes from a server that shuts down."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddedPrompt:
    """A prompt in the form that vLLM accepts."""

    key: str
    """The document's key."""

    embeddings: Tensor
    """[N, D], on the CPU, in the model's dtype, in memory of its own."""

    settings: GenerationSettings
    seed: int
    """Seed of its sampling."""

    stop_ids: Sequence[int]
    """Each ends an answer."""


class Decoded(NamedTuple):
    """The result of decoding a prompt with vLLM."""

    tokens: list[int]
    """New token ids, up to and including the end of text."""


class Transport(ABC):
    """A connection to vLLM. All methods are called in one event loop."""

    max_in_flight: int
    """The number of prompts to submit at once."""

    max_length: int
    """Maximum number of tokens of a prompt and its answer."""

    can_penalise: bool = False
    """Whether a repetition penalty counts only the answer's tokens, as in transformers."""

    @abstractmethod
    async def open(self) -> Mapping[str, Any]:
        """Check that vLLM is available and return its description for a run's record.

        Raises:
            ConfigError: it is not available or doesn't accept embeddings.
        """

    @abstractmethod
    async def decode(self, prompt: EmbeddedPrompt) -> Decoded:
        """Decode a prompt.

        Raises:
            ValueError, RuntimeError: this prompt can't be answered.
            UserError: vLLM is gone, so that no prompt can be answered.
        """

    async def close(self) -> None:  # noqa: B027
        """Release vLLM."""

    def closing_words(self) -> str | None:
        """Return remarks for the user at the end of a run."""
        return None


class Backend:
    """A transport with its own event loop in a thread."""

    def __init__(self, transport: Transport) -> None:
        """Raises ConfigError, as `Transport.open`."""
        self._transport = transport
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        try:
            self.facts: Mapping[str, Any] = self._run(transport.open())
            """Its description in a run's record."""
        except BaseException:
            self.close()
            raise

    @property
    def max_in_flight(self) -> int:
        """The number of prompts that keeps vLLM busy."""
        return self._transport.max_in_flight

    def check(self, settings: GenerationSettings) -> None:
        """Raise ConfigError if vLLM can't generate from embeddings under these settings."""
        if settings.num_beams > 1:
            raise ConfigError(
                f"num_beams={settings.num_beams} isn't possible with engine=vllm, which has no beam search "
                "from embeddings. Pass engine=transformers."
            )
        if settings.repetition_penalty != 1 and not self._transport.can_penalise:
            # vLLM has no ids of a prompt of embeddings and uses those of an earlier prompt instead.
            raise ConfigError(
                f"repetition_penalty={settings.repetition_penalty:g} isn't possible with a vLLM server, which would "
                "also count tokens of other prompts. Leave out server=, so that vLLM runs in this process, or pass "
                "engine=transformers."
            )

    def submit(self, prompt: EmbeddedPrompt) -> Future[Decoded]:
        """Submit a prompt for decoding. The future raises the same errors as `Transport.decode`."""
        return asyncio.run_coroutine_threadsafe(self._decode(prompt), self._loop)

    async def _decode(self, prompt: EmbeddedPrompt) -> Decoded:
        length = len(prompt.embeddings)
        if length >= self._transport.max_length:
            raise ValueError(
                f"its prompt has {length} tokens and vLLM was started for {self._transport.max_length} with the "
                "answer; start it with a larger max_model_len, or lower max_tiles, total_max_tiles or num_frames"
            )
        return await self._transport.decode(prompt)

    def closing_words(self) -> str | None:
        """Return remarks for the user at the end of a run."""
        return self._transport.closing_words()

    def close(self) -> None:
        """Release vLLM. Nothing can be submitted afterwards."""
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            return
        self._run(self._transport.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def sampling(prompt: EmbeddedPrompt, max_length: int) -> dict[str, Any]:
    """Return vLLM's sampling parameters of a prompt.

    All parameters are set, because vLLM takes missing ones from the checkpoint's generation_config.json.

    Args:
        max_length: maximum number of tokens of a prompt and its answer.
    """
    settings = prompt.settings
    chance: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}
    if settings.do_sample:
        chance = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "seed": prompt.seed,
        }
    return {
        **chance,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": settings.repetition_penalty,
        "max_tokens": min(settings.max_new_tokens, max_length - len(prompt.embeddings)),
        "stop": list(settings.until),
        "stop_token_ids": list(prompt.stop_ids),
    }
