"""Several vLLM servers.

A prompt is sent to the server with the fewest prompts in flight. A server that no longer responds is dropped, and its
prompts are sent to the others.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from vico_eval.engine.decode.backend import Decoded, EmbeddedPrompt, Transport, sampling
from vico_eval.engine.decode.probe import Probe, check_server, encoded
from vico_eval.engine.decode.server import TRIES, Failed, Lost, Server
from vico_eval.errors import ConfigError, UserError
from vico_eval.paths import user_path
from vico_eval.server_address import Address, Redactor, hide_in_addresses

IN_FLIGHT = 128
"""Number of prompts in flight per server; vLLM processes up to 256, and several processes may share a server."""

CONNECT_S = 10.0
READ_S = 7200.0
"""Maximum time for an answer in seconds; 64K tokens take about 15 minutes."""

PROBE_S = 300.0
"""Timeout of the checks before the first prompt, in seconds; the server may be busy with other requests."""

WATCH_S = 15.0
"""Seconds between two checks of whether a server with prompts in flight still responds."""

MAX_ADDRESSES = 1024


class NoServer(UserError):
    """All servers are gone. Earlier answers are kept."""


def read_addresses(text: str) -> list[Address]:
    """Read addresses from a string like `http://a:8000`, several joined by `/`, or from a file with one per line.

    Raises:
        ConfigError: there are none, or one is invalid.
    """
    path = user_path(text)
    if "//" not in text and path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"server={hide_in_addresses(text)} can't be read: {error}. Expected a text file, an address a line."
            ) from error
    else:
        lines = re.split(r"/+(?=https?://)", text)
    if not 1 <= len(lines) <= MAX_ADDRESSES:
        raise ConfigError(
            f"server={hide_in_addresses(text)} names {len(lines)} servers; expected 1 to {MAX_ADDRESSES}."
        )
    return list({address.shown: address for address in map(Address.parse, lines)}.values())


class Servers(Transport):
    """vLLM servers with the decoder of the same checkpoint."""

    def __init__(self, addresses: Sequence[Address], probe: Probe, *, watch_s: float = WATCH_S) -> None:
        """
        Args:
            addresses: one or more addresses.
            probe: the check of each server before the first prompt.
            watch_s: see `WATCH_S`.
        """
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            # Servers close connections that are idle for 5 s, which would lose a prompt sent at that moment.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=1.0),
            headers={"accept-encoding": "identity"},
            trust_env=False,  # no proxy: servers are on this machine or its network
        )
        redact = Redactor(secret for address in addresses for secret in address.secrets)
        self._servers = [Server(address, self._client, redact) for address in addresses]
        self._probe, self._watch_s = probe, watch_s
        self._watchers: list[asyncio.Task[None]] = []
        self.max_in_flight = IN_FLIGHT * len(addresses)
        self.max_length = 0

    async def open(self) -> Mapping[str, Any]:
        """See `Transport.open`. Every server must respond and have the checkpoint's decoder."""
        found = []
        for server in self._servers:
            found.append(await server.look_at())
            checking = check_server(server, self._probe, root=found[-1]["root"])
            try:
                await asyncio.wait_for(checking, PROBE_S)
            except asyncio.TimeoutError as error:
                raise ConfigError(
                    f"{server.shown} has not answered three tokens within {PROBE_S:.0f} s; see whether it hangs, or "
                    "is busy with others."
                ) from error
        self.max_length = min(one["max_model_len"] for one in found)
        self._watchers = [asyncio.create_task(self._watch(server)) for server in self._servers]
        return {"version": found[0]["version"], "servers": found}

    async def close(self) -> None:
        """Close the connections."""
        for watcher in self._watchers:
            watcher.cancel()
        await self._client.aclose()

    async def decode(self, prompt: EmbeddedPrompt) -> Decoded:
        """See `Transport.decode`."""
        content = await asyncio.to_thread(_content, prompt, self.max_length)
        failures: list[Failed] = []
        while len(failures) < TRIES:
            try:
                return Decoded(await self._freest().complete(content))
            except Failed as error:
                failures.append(error)
            except Lost:
                continue
        raise RuntimeError(f"vLLM failed {TRIES} times; the last: {failures[-1]}")

    def _freest(self) -> Server:
        alive = [server for server in self._servers if server.why_lost is None]
        if not alive:
            reasons = "; ".join(f"{server.shown}: {server.why_lost}" for server in self._servers)
            raise NoServer(
                f"no vLLM server is left ({reasons}). What has been answered is kept: start a server and repeat the "
                "command, and it resumes."
            )
        return min(alive, key=lambda server: server.in_flight)

    async def _watch(self, server: Server) -> None:
        """Drop a server that stops responding."""
        silent = 0
        while server.why_lost is None:
            await asyncio.sleep(self._watch_s)
            silent = 0 if not server.in_flight or await server.is_alive(self._watch_s) else silent + 1
            if silent == TRIES:
                server.lose(f"{TRIES} times it has not even said that it lives")

    def closing_words(self) -> str | None:
        """Return a remark that names the lost servers."""
        lost = [server for server in self._servers if server.why_lost is not None]
        if not lost:
            return None
        told = "; ".join(f"{one.shown} after {one.num_answers} answers ({one.why_lost})" for one in lost)
        return f"{len(lost)} of {len(self._servers)} vLLM servers were lost, their prompts were asked again: {told}"


def _content(prompt: EmbeddedPrompt, max_length: int) -> dict[str, Any]:
    return {"prompt_embeds": encoded(prompt.embeddings), **sampling(prompt, max_length), "return_token_ids": True}
