"""The client of one server: finding out which model it serves, and sending single streamed requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from vico_eval.bench.serve.answer import CUT, REFUSED, TIMEOUT, UNREADABLE, AnswerStream, Outcome
from vico_eval.bench.serve.workload import Request
from vico_eval.errors import ConfigError, listed
from vico_eval.server_address import Address, Redactor
from vico_eval.server_reading import MAX_LIST_BYTES, UnreadableAnswer, read_body, read_json, read_lines, read_start

MAX_WORDS = 300
"""The maximum number of characters kept of a server's message."""

MAX_NAME = 300
"""The maximum number of characters kept of a model's or server's name."""

MAX_LISTED = 20
"""The maximum number of models that a message names."""

LOOK_S = 30.0
"""The total time in which a server must tell what it serves."""

NOT_HTTP = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, OverflowError)
"""The exceptions that an exchange can raise; a redirect to an invalid address, for example, is a ValueError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server's description of itself, without secrets."""

    name: str
    url: str
    model: str
    is_listed: bool
    """Whether it lists the model. `transformers serve` lists the hub's cache, not the model it was started with."""

    owned_by: str = ""
    """The owner in the list of models, which is the engine's name with vLLM, LMDeploy and SGLang."""

    version: str = ""
    """The version from `/version`, which vLLM provides."""

    def as_record(self) -> dict[str, Any]:
        """Return the values for the summary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Target:
    """The address and model to request. It may contain a password, so it is never written to disk."""

    address: Address
    model: str


class Client:
    """Sends requests to one server.

    Args:
        server: the server's description, without secrets.
        target: the address and model to request.
        connections: one connection per request in flight, shared by all servers.
        max_tokens: maximum number of tokens of every answer.
        timeout_s: time limit for a whole answer.
        zero: the time that counts as 0, in `time.perf_counter`'s seconds.
        redactor: removes secrets from everything that is written.
    """

    def __init__(
        self,
        server: Server,
        target: Target,
        connections: list[httpx.AsyncClient],
        *,
        max_tokens: int,
        timeout_s: float,
        zero: float,
        redactor: Redactor,
    ) -> None:
        self.server = server
        self.max_tokens = max_tokens
        self.timeout_s = timeout_s
        self.failures_in_a_row = 0
        self._target = target
        self._redactor = redactor
        self._idle = connections
        self._zero = zero

    async def ask(self, request: Request) -> Outcome:
        """Send a request and read its answer; any failure is in the outcome."""
        body = request.body | {
            "model": self._target.model,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        stream = AnswerStream()
        sent = time.perf_counter()
        try:
            status, words = await asyncio.wait_for(self._exchange(request.path, body, stream), self.timeout_s)
            if status:
                failure = status
            else:
                failure, words = stream.problem(self.max_tokens, request.prompt_tokens)
        except asyncio.TimeoutError:
            failure, words = TIMEOUT, f"the answer did not end within {self.timeout_s:g} s"
        except UnreadableAnswer as error:
            failure, words = UNREADABLE, str(error)
        except httpx.ConnectError as error:
            failure, words = REFUSED, str(error)
        except NOT_HTTP as error:
            failure, words = CUT, f"{type(error).__name__}: {error}"
        self.failures_in_a_row = self.failures_in_a_row + 1 if failure else 0
        return Outcome(
            sent_s=sent - self._zero,
            latency_s=time.perf_counter() - sent,
            first_token_s=None if stream.first_at is None else stream.first_at - sent,
            last_token_s=None if stream.last_at is None else stream.last_at - sent,
            prompt_tokens=stream.prompt_tokens,
            output_tokens=stream.output_tokens,
            failure=failure,
            # Some servers repeat the rejected key in their message.
            words=self._redactor.words(words, MAX_WORDS),
        )

    async def _exchange(self, path: str, body: dict[str, Any], stream: AnswerStream) -> tuple[str, str]:
        """Feed the answer to the stream; return a status other than 200 with the server's message, or empty strings."""
        http = self._idle.pop()
        try:
            async with http.stream("POST", self._target.address.to(path), json=body) as response:
                if response.status_code != 200:
                    return f"HTTP {response.status_code}", await read_start(response)
                async for lines in read_lines(response):
                    now = time.perf_counter()
                    for line in lines:
                        stream.feed(line, now)
            return "", ""
        finally:
            self._idle.append(http)


@asynccontextmanager
async def open_connections(number: int, key: str | None) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Open a number of HTTP clients for one request at a time each.

    A single client with that many connections would check all of them at each step of each request. The clients bypass
    proxies, whose time would be measured too.

    Args:
        number: the number of clients.
        key: the bearer token of every request; None sends none.
    """
    tls = httpx.create_ssl_context()
    headers = {"Accept-Encoding": "identity"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    async with AsyncExitStack() as stack:
        clients = [
            httpx.AsyncClient(headers=headers, cookies=_no_cookies(), timeout=None, verify=tls, trust_env=False)
            for _ in range(number)
        ]
        yield [await stack.enter_async_context(client) for client in clients]


def _no_cookies() -> CookieJar:
    """Return a cookie jar that accepts no cookies, which would otherwise be sent back with every request."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


async def look_at(
    http: httpx.AsyncClient, name: str, address: Address, model: str | None, redactor: Redactor
) -> tuple[Server, Target]:
    """Find out what a server serves.

    Args:
        http: an open client.
        name: the server's name in tables.
        address: the server's address.
        model: the model to request; None means the only one that the server lists.
        redactor: removes secrets from everything that is written.

    Raises:
        ConfigError: no server answers, or `model` is None and the server does not list exactly one model.
    """
    url, until = address.shown, time.perf_counter() + LOOK_S
    try:
        status, text = await _get(http, address.to("/v1/models"), until)
    except asyncio.TimeoutError as error:
        raise ConfigError(
            f"the server at {url} did not list its models within {LOOK_S:g} s. Wait until it reports that it is ready."
        ) from error
    except UnreadableAnswer as error:
        raise ConfigError(f"the server at {url} sent an unreadable list of models: {error}.") from error
    except NOT_HTTP as error:
        raise ConfigError(
            f"no server answers at {url} ({redactor.words(f'{type(error).__name__}: {error}', MAX_WORDS)}). Start it, "
            "wait until it reports that it is ready, and pass the address that it prints, such as "
            "http://localhost:23333."
        ) from error
    owners = _owners(text)
    if model is None and len(owners) != 1:
        raise ConfigError(_no_choice(url, status, [redactor.words(owner, MAX_NAME) for owner in owners]))
    chosen = next(iter(owners)) if model is None else model
    server = Server(
        name=name,
        url=url,
        model=redactor.words(chosen, MAX_NAME),
        is_listed=chosen in owners,
        owned_by=redactor.words(owners.get(chosen, ""), MAX_NAME),
        version=redactor.words(await _version(http, address, until), MAX_NAME),
    )
    return server, Target(address, chosen)


def _no_choice(url: str, status: int, models: list[str]) -> str:
    if status == 401:
        return (
            f"the server at {url} rejected the API key (HTTP 401). Name the environment variable that holds the key "
            "with --api-key-env."
        )
    said = f"{len(models)} models: {listed(models, MAX_LISTED)}" if models else f"no model (HTTP {status})"
    moved = " It redirects to another address; pass that one." if 300 <= status < 400 else ""
    return f"the server at {url} lists {said}.{moved} Choose a model with --model."


async def _get(http: httpx.AsyncClient, url: httpx.URL, until: float) -> tuple[int, str]:
    """Return status and body. The time limit is for both together, so that a trickling server can't exceed it."""

    async def get() -> tuple[int, str]:
        async with http.stream("GET", url) as response:
            return response.status_code, await read_body(response, MAX_LIST_BYTES)

    return await asyncio.wait_for(get(), max(0.0, until - time.perf_counter()))


def _owners(text: str) -> Mapping[str, str]:
    """Return the models in an answer of `/v1/models` with their owners; empty if it is not a list of models.

    `transformers serve` fails at this endpoint if the hub's cache is empty, but answers requests nevertheless.
    """
    try:
        listed = {entry["id"]: entry.get("owned_by") for entry in read_json(text)["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: str(owner or "") for name, owner in listed.items() if isinstance(name, str)}


async def _version(http: httpx.AsyncClient, address: Address, until: float) -> str:
    try:
        status, text = await _get(http, address.to("/version"), until)
        return str(read_json(text)["version"]) if status == 200 else ""
    except (*NOT_HTTP, asyncio.TimeoutError, UnreadableAnswer, KeyError, TypeError, IndexError):
        return ""
