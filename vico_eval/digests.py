"""SHA-256 digests of texts and files. Digests of large files are cached in the user's cache folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from platformdirs import user_cache_path

from vico_eval.files import lock, write_json
from vico_eval.logs import logger

REMEMBERED_BYTES = 64 << 20
"""Smaller files are hashed each time, which is fast and keeps the cache small."""

BUFFER_BYTES = 16 << 20
WAIT_S = 1800
"""Longest wait for another process that is reading the same file, in seconds; after that it is read here too."""


def text_digest(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256; lone surrogates are allowed."""
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex; cached for a large file as long as its size and times don't change."""
    return remembered("whole", path, lambda path: {"file": sha256_of(path)})["file"]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's current content, in hex, bypassing the cache."""
    digest = sha256()
    buffer = memoryview(bytearray(min(BUFFER_BYTES, path.stat().st_size + 1)))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def remembered(what: str, path: Path, compute: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """The result of `compute` for a file, cached until the file's path, size or times change.

    Concurrent processes compute it once. If the cache can't be read or written, the result is computed again.

    Args:
        what: name of the computation, part of the cache key.
        path: the file.
        compute: returns digests by name, at least one.
    """
    path = path.resolve()
    if path.stat().st_size < REMEMBERED_BYTES:
        return compute(path)
    name = sha256(f"{what} {path}".encode(errors="surrogateescape")).hexdigest()
    entry = user_cache_path("vico-eval") / "digests" / name
    if not entry.is_absolute():  # this user has no home folder
        return compute(path)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        held = lock(entry.with_suffix(".lock"))
        held.acquire(timeout=WAIT_S)
    except OSError as error:
        logger.debug(f"digests can't be cached in {entry.parent}: {error}")
        return compute(path)
    try:
        state = _state(path)
        if (found := _read(entry, state)) is None:
            found = compute(path)
            if _state(path) == state:
                _write(entry, state, found)
        return found
    finally:
        held.release()


def _state(path: Path) -> dict[str, str | int]:
    # ctime changes with every write, even if mtime is restored afterwards, as a copy that preserves times does.
    state = path.stat()
    return {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns, "ctime_ns": state.st_ctime_ns}


def _read(entry: Path, state: dict[str, str | int]) -> dict[str, str] | None:
    try:
        values = json.loads(entry.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or {name: values.get(name) for name in state} != state:
        return None
    digests = values.get("digests")
    if not isinstance(digests, dict) or not digests or not all(isinstance(text, str) for text in digests.values()):
        return None
    return digests


def _write(entry: Path, state: dict[str, str | int], digests: dict[str, str]) -> None:
    try:
        write_json(entry, state | {"digests": digests})
    except OSError as error:
        logger.debug(f"digests can't be cached in {entry.parent}: {error}")
