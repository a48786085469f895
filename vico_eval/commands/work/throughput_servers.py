"""Which servers `vico-eval throughput serve` asks, for which model, and with which key."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.server_address import Address, hide_in_addresses

ONLY = "server"
"""Name of the one that has none."""

_NAME = re.compile(r"[^/@?:#]+")
"""Of a server, in tables. An address without a name in front is none, and may hold a password."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""How environment variables are called. A key in the place of one is not repeated."""

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""Syntax of a bearer token (RFC 6750, 2.1)."""


def server_addresses(url: str | None, compare: Sequence[str]) -> dict[str, Address]:
    """Address of each server by its name.

    Args:
        url: of the only server.
        compare: in its place NAME=URL, each name once.

    Raises:
        ConfigError: both or none of them, or no such pair.
    """
    if (url is None) == (not compare):
        raise ConfigError("give the address of one server, or --compare NAME=URL for each of several; not both.")
    if url is not None:
        return {ONLY: Address.parse(url)}
    addresses: dict[str, Address] = {}
    for part in compare:
        name, equals, address = part.partition("=")
        if not (equals and _NAME.fullmatch(name) and name.isprintable() and address) or name in addresses:
            raise ConfigError(f"--compare got {hide_in_addresses(part)!r}; expected NAME=URL, each name once.")
        addresses[name] = Address.parse(address)
    return addresses


def server_models(models: Sequence[str], names: Sequence[str]) -> dict[str, str | None]:
    """Model to ask each server for; None where nobody says.

    Args:
        models: MODEL for all servers, or NAME=MODEL for one of several, which goes before. The only server has no name,
            so that anything is its model.
        names: of the servers.

    Raises:
        ConfigError: another server's name, or two models for one server.
    """
    said: dict[str, str] = {}
    for part in models:
        name, equals, model = part.partition("=")
        if list(names) == [ONLY] or not equals:
            name, model = "", part
        elif name not in names:
            raise unknown_name("server", name, names, f"--model {part}")
        if not model or name in said:
            raise ConfigError(
                f"--model got {part!r}; expected one MODEL for all servers, and NAME=MODEL once for each of "
                "--compare's that serves another."
            )
        said[name] = model
    return {name: said.get(name, said.get("")) for name in names}


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable; None without a variable. No message has the key in it.

    Raises:
        ConfigError: it is not set, or holds what no key can be.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        named = repr(variable) if _VARIABLE.fullmatch(variable) else "a variable (not shown, it may be the key itself)"
        raise ConfigError(
            f"--api-key-env names {named}, which is {'not set' if key is None else 'empty'}; expected the name of an "
            "environment variable that holds the key."
        )
    if not _BEARER.fullmatch(key):
        raise ConfigError(
            f"the environment variable {variable} holds no key that a server could be sent: expected letters, digits "
            "and -._~+/ with = at the end only, without spaces or line breaks."
        )
    return key
