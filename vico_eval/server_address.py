"""Server addresses, and redaction of their secrets: keys, passwords and query values."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import httpx

from vico_eval.errors import ConfigError

HIDDEN: Final = "(key)"

MIN_SECRET = 3
"""Shortest user name or query value that is redacted in a server's messages; addresses hide shorter ones too."""

MAX_PORT = 65535

_USER = re.compile(r"(//)[^\s/]*@|(//)\S*@(?=[^\s@]*$)")
_QUERY = re.compile(r"(//[^\s?#'\"]*[?#])[^\s'\"]+")


def hide_in_addresses(text: str) -> str:
    """The text with user, password, query and fragment of every address replaced."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"//{HIDDEN}@", text))


def _hide_in_any(text: str) -> str:
    """The same for a text that should be an address but may lack the scheme."""
    return hide_in_addresses(text) if "//" in text else hide_in_addresses(f"//{text}")[2:]


@dataclass(frozen=True, slots=True)
class Address:
    """A server's root address, without `/v1`. User, password and query are sent with every request."""

    url: httpx.URL

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse an address, with or without `/v1`.

        Raises:
            ConfigError: the text is not an http or https address with a host and a valid port.
        """
        try:
            url = httpx.URL(text)
            is_address = url.scheme in ("http", "https") and bool(url.host) and not url.fragment
            if not is_address or not 1 <= (1 if url.port is None else url.port) <= MAX_PORT:
                raise ValueError(text)
            # Connecting starts with this step, for which httpx has no error class of its own.
            url.host.encode("idna")
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(
                f"no server answers at {_hide_in_any(text)}: expected http:// or https://, a host and a port from 1 to "
                f"{MAX_PORT}, such as http://localhost:23333."
            ) from error
        return cls(url.copy_with(path=url.path.rstrip("/").removesuffix("/v1").rstrip("/") or "/"))

    def to(self, path: str) -> httpx.URL:
        """The address of a path on the server."""
        return self.url.copy_with(path=self.url.path.rstrip("/") + path)

    @property
    def shown(self) -> str:
        """The address without secrets, for messages and files."""
        return hide_in_addresses(str(self.url).rstrip("/"))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Parts of the address that a server's message must not reveal."""
        user = self.url.userinfo.decode("ascii")
        basic = base64.b64encode(f"{self.url.username}:{self.url.password}".encode()).decode("ascii")
        values = [self.url.username, *(value for _, value in self.url.params.multi_items())]
        known = [value for value in values if len(value) >= MIN_SECRET]
        return (self.url.password, *((user, basic) if user else ()), *known)


class Redactor:
    """Replaces secrets in texts, whether plain or escaped as in JSON, URLs or HTML, ignoring case.

    All text from a server or the command line passes through it before it reaches a file or a terminal.
    """

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        # Longest first, because one secret may be a prefix of another.
        known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(_in_any_writing, known)), re.IGNORECASE) if known else None

    def __call__(self, text: str) -> str:
        """The text with every secret replaced, including the secret parts of addresses."""
        text = hide_in_addresses(text)
        return text if self._secrets is None else self._secrets.sub(HIDDEN, text)

    def words(self, text: str, most: int) -> str:
        """The first `most` characters of a text from outside, redacted and safe for a terminal."""
        # Truncate last, since a truncated secret would not be found.
        plain = " ".join(self(text).split())
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in plain)[:most]


def _in_any_writing(secret: str) -> str:
    """Regular expression for a secret in which any character may be escaped."""
    return "".join(
        rf"(?:{re.escape(letter)}|\\{re.escape(letter)}|\\u{ord(letter):04x}|&#{ord(letter)};|&#x{ord(letter):x};"
        rf"|{''.join(f'%{byte:02x}' for byte in letter.encode('utf-8', errors='surrogatepass'))})"
        for letter in secret
    )
