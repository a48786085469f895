"""The servers, models and API key of `vico-eval throughput serve`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.server_address import Address, hide_in_addresses

ONLY = "server"
"""Name of a server without one."""

_NAME = re.compile(r"[^/@?:#]+")
"""Syntax of a server's name in tables. An address without a name isn't one, and may contain a password."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Syntax of environment variables. A key given by mistake is not repeated in messages."""

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""Syntax of a bearer token (RFC 6750, 2.1)."""


def server_addresses(url: str | None, compare: Sequence[str]) -> dict[str, Address]:
    """Return the address of each server by name.

    Args:
        url: the address of the only server.
        compare: NAME=URL for several servers, each name once.

    Raises:
        ConfigError: both or neither are given, or a pair is invalid.
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
    """Return the model to request from each server; None if not specified.

    Args:
        models: MODEL for all servers, or NAME=MODEL for one of several, which takes precedence. A single server has no
            name, so any value is its model.
        names: the servers' names.

    Raises:
        ConfigError: a server's name is unknown, or has two models.
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
    """Return the key in an environment variable; None without a variable. Messages never contain the key.

    Raises:
        ConfigError: it isn't set, or isn't a valid key.
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
            f"the environment variable {variable} has no usable key: expected letters, digits "
            "and -._~+/ with = at the end only, without spaces or line breaks."
        )
    return key
