"""Asks one server: which model it serves, and single requests as streams."""

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
"""Characters of a server's own words that are kept."""

MAX_NAME = 300
"""Characters of a name that a server gives its model or itself."""

MAX_LISTED = 20
"""Models that a message names."""

LOOK_S = 30.0
"""Within which a server has to say what it serves, all of it together."""

NOT_HTTP = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, OverflowError)
"""What an exchange can end with, whatever the server sends: a redirect to an impossible address is a ValueError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What a server says of itself, as it may be written."""

    name: str
    url: str
    model: str
    is_listed: bool
    """Whether it lists the model. `transformers serve` lists the hub's cache, not what it was started with."""

    owned_by: str = ""
    """The engine, as vLLM, LMDeploy and SGLang say it there."""

    version: str = ""
    """From `/version`, which vLLM has."""

    def as_record(self) -> dict[str, Any]:
        """For the summary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, and for what. Never written: it may have a password in it."""

    address: Address
    model: str


class Client:
    """Sends requests to one server.

    Args:
        server: which, as it may be written.
        target: the same, as it is asked.
        connections: for all servers, one a request in flight.
        max_tokens: of every answer.
        timeout_s: for a whole answer.
        zero: what clocks start from, in `time.perf_counter`'s seconds.
        redactor: knows all that has to be kept out of what is written.
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
        """Send a request and read its answer; whatever goes wrong is in the outcome."""
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
            failure, words = TIMEOUT, f"no end of the answer within {self.timeout_s:g} s"
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
            # Some servers say which key they refuse.
            words=self._redactor.words(words, MAX_WORDS),
        )

    async def _exchange(self, path: str, body: dict[str, Any], stream: AnswerStream) -> tuple[str, str]:
        """Feed the stream; a status other than 200, and the server's words with it."""
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
    """So many clients for a request at a time.

    One client with as many connections would look at all of them at each step of each request. They go around proxies,
    which would be measured, too.

    Args:
        number: of clients.
        key: sent as bearer token with every request; None sends none.
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
    """Keeps none: a server's would come back to it with every request."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


async def look_at(
    http: httpx.AsyncClient, name: str, address: Address, model: str | None, redactor: Redactor
) -> tuple[Server, Target]:
    """What a server serves.

    Args:
        http: an open client.
        name: of the server in tables.
        address: where it is.
        model: to ask for; None takes the only one that it lists.
        redactor: knows all that has to be kept out of what is written.

    Raises:
        ConfigError: no server there, or not one model to choose from.
    """
    url, until = address.shown, time.perf_counter() + LOOK_S
    try:
        status, text = await _get(http, address.to("/v1/models"), until)
    except asyncio.TimeoutError as error:
        raise ConfigError(
            f"the server at {url} did not list its models within {LOOK_S:g} s. Wait until it says that it listens."
        ) from error
    except UnreadableAnswer as error:
        raise ConfigError(f"the server at {url} sends no list of models: {error}.") from error
    except NOT_HTTP as error:
        raise ConfigError(
            f"no server answers at {url} ({redactor.words(f'{type(error).__name__}: {error}', MAX_WORDS)}). Start it, "
            "wait until it says that it listens, and give the address that it names, such as http://localhost:23333."
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
            f"the server at {url} wants another API key (HTTP 401). Name the environment variable that holds it with "
            "--api-key-env."
        )
    said = f"{len(models)} models: {listed(models, MAX_LISTED)}" if models else f"no model (HTTP {status})"
    moved = " It redirects to another address; give that one." if 300 <= status < 400 else ""
    return f"the server at {url} lists {said}.{moved} Say with --model which one to ask."


async def _get(http: httpx.AsyncClient, url: httpx.URL, until: float) -> tuple[int, str]:
    """Status and body, if both are there in time: a read of its own each, a byte now and then would be waited for."""

    async def get() -> tuple[int, str]:
        async with http.stream("GET", url) as response:
            return response.status_code, await read_body(response, MAX_LIST_BYTES)

    return await asyncio.wait_for(get(), max(0.0, until - time.perf_counter()))


def _owners(text: str) -> Mapping[str, str]:
    """The models of `/v1/models` and whose they are; none if it is no list.

    `transformers serve` fails there where the hub's cache is empty, and answers requests all the same.
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
