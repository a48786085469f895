"""A vLLM server: its description of itself, and OpenAI-style completions for prompts given as embeddings.

Its responses are not trusted: their size is limited, and text is cleaned before it is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import httpx

from vico_eval.engine.decode.backend import ENDED
from vico_eval.errors import ConfigError
from vico_eval.logs import logger
from vico_eval.server_address import Address, Redactor
from vico_eval.server_reading import MAX_LIST_BYTES, UnreadableAnswer, read_body, read_json, read_start

TRIES = 3
"""How often a prompt is tried."""

ERRORS = 3 * TRIES
"""This many consecutive errors can't be caused by one prompt, which has fewer tries."""

OF_THE_PROMPT = (400, 413, 422)
"""HTTP statuses that reject a prompt. Other errors mean that the server changed or is overloaded."""

LOOK_S = 10.0
"""Timeout of questions about the server, in seconds."""

SHOWN = 300
"""Maximum number of characters of a server's text in a message."""

MAX_ANSWER_BYTES = 64 * 2**20
"""Maximum size of a response. A hundred thousand tokens with ids and text take a few MB."""


class Lost(Exception):
    """A server no longer responds."""


class Failed(Exception):
    """A server failed to answer a prompt, which can be sent again."""


class Refused(ValueError):
    """A server rejected a prompt; the message has its reason."""


class Server:
    """A server's address and state."""

    def __init__(self, address: Address, client: httpx.AsyncClient, redact: Redactor) -> None:
        self.shown = address.shown
        self.in_flight = 0
        self.num_answers = 0
        self.why_lost: str | None = None
        self._address, self._client, self._redact = address, client, redact
        self._model = ""
        self._errors_in_a_row = 0
        self._lost = asyncio.Event()

    def lose(self, reason: str) -> None:
        """Stop sending to the server and drop its pending requests."""
        if self.why_lost is None:
            self.why_lost = reason
            self._lost.set()
            logger.warning(f"vLLM at {self.shown} is dropped: {reason}; what it was asked is asked again elsewhere")

    async def look_at(self) -> dict[str, Any]:
        """Ask the server for its version, model, model location and `max_model_len`.

        Raises:
            ConfigError: it doesn't respond or isn't vLLM.
        """
        try:
            version, models = [await asyncio.wait_for(self._get(path), LOOK_S) for path in ("/version", "/v1/models")]
            (model,) = models["data"]
            self._model = str(model["id"])
            return {
                "address": self.shown,
                "version": self._words(str(version["version"])),
                "model": self._words(self._model),
                "root": self._words(str(model.get("root", ""))),
                "max_model_len": int(model["max_model_len"]),
            }
        except (httpx.HTTPError, asyncio.TimeoutError) as error:
            raise ConfigError(
                f"no vLLM server responds at {self.shown}: {self._named(error)}. Start one with `vllm serve DECODER "
                "--enable-prompt-embeds`, where `vico-eval export-decoder` writes DECODER, or correct server=."
            ) from error
        except (KeyError, TypeError, ValueError, UnreadableAnswer) as error:
            raise ConfigError(
                f"{self.shown} does not respond like a vLLM server with one model ({self._named(error)}). Expected "
                "the address of `vllm serve`."
            ) from error

    async def is_alive(self, limit_s: float) -> bool:
        """Return whether the server responds to a health check in time; a busy server does."""
        try:
            return await asyncio.wait_for(self._status("/health"), limit_s) == httpx.codes.OK
        except (httpx.HTTPError, asyncio.TimeoutError):
            return False

    async def complete(self, content: Mapping[str, Any]) -> list[int]:
        """Return the generated token ids of a completion.

        Args:
            content: the request's body without the model.

        Raises:
            Refused, Failed, Lost: no ids were returned.
        """
        said = await self._ask("/v1/completions", content)
        try:
            tokens = _tokens(said)
        except Failed as error:
            self._note_error(str(error))
            raise
        self.num_answers += 1
        self._errors_in_a_row = 0
        return tokens

    async def tokenize(self, text: str) -> list[int]:
        """Tokenize a text with the server's tokenizer, without special tokens.

        Raises:
            Refused, Failed, Lost: no ids were returned.
        """
        said = await self._ask("/tokenize", {"prompt": text, "add_special_tokens": False})
        tokens = said.get("tokens")
        return tokens if isinstance(tokens, list) else []

    async def _ask(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request. Raises Refused, Failed or Lost."""
        self.in_flight += 1
        try:
            return await self._until_lost(self._post(path, content))
        except UnreadableAnswer as error:
            words = f"{self.shown}: {error}"
            self._note_error(words)
            raise Failed(words) from error
        finally:
            self.in_flight -= 1

    async def _status(self, path: str) -> int:
        async with self._client.stream("GET", self._address.to(path)) as answer:
            return answer.status_code

    async def _until_lost(self, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        working, losing = asyncio.create_task(work), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({working, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Lost
            return working.result()
        except httpx.HTTPError as error:
            if not await self.is_alive(LOOK_S):
                self.lose(self._named(error))
                raise Lost from error
            words = f"{self.shown} lives and has lost a prompt: {self._named(error)}"
            self._note_error(words)
            raise Failed(words) from error
        finally:
            working.cancel()
            losing.cancel()

    async def _get(self, path: str) -> dict[str, Any]:
        async with self._client.stream("GET", self._address.to(path)) as answer:
            answer.raise_for_status()
            return _object(await read_body(answer, MAX_LIST_BYTES))

    async def _post(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        request = {**content, "model": self._model}
        async with self._client.stream("POST", self._address.to(path), json=request) as answer:
            if answer.status_code != httpx.codes.OK:
                words = f"{self.shown} answered {answer.status_code}: {self._words(await read_start(answer))}"
                if answer.status_code in OF_THE_PROMPT:
                    raise Refused(words)
                self._note_error(words)
                raise Failed(words)
            return _object(await read_body(answer, MAX_ANSWER_BYTES))

    def _note_error(self, words: str) -> None:
        self._errors_in_a_row += 1
        if self._errors_in_a_row >= ERRORS:
            self.lose(f"{ERRORS} prompts in a row came to nothing; the last: {words}")

    def _named(self, error: BaseException) -> str:
        return self._words(f"{type(error).__name__} {error}".rstrip())

    def _words(self, text: str) -> str:
        return self._redact.words(text, SHOWN)


def _object(text: str) -> dict[str, Any]:
    try:
        said = read_json(text)
    except ValueError as error:
        raise UnreadableAnswer(str(error)) from error
    if not isinstance(said, dict):
        raise UnreadableAnswer("it answered with no JSON object")
    return said


def _tokens(said: Mapping[str, Any]) -> list[int]:
    try:
        (choice,) = said["choices"]
        tokens, reason = choice["token_ids"], choice["finish_reason"]
        if reason not in ENDED:
            raise ValueError(f"it ended by {reason!r}, not {' or '.join(ENDED)}")
        if not tokens or not all(type(token) is int and token >= 0 for token in tokens):
            raise ValueError("token_ids are not integers")
        return list(tokens)
    except (KeyError, TypeError, ValueError) as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN]
        raise Failed(f"an answer can't be used ({words}); expected vLLM's token_ids and finish_reason") from error
