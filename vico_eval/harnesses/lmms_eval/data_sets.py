"""Fingerprints of a task's data: the revision of a hub repository, or the content of files."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from vico_eval.digests import file_digest

_COMMIT = re.compile(r"[0-9a-f]{40}")


def split_fingerprint(split: Any) -> str | None:
    """Return the fingerprint of a split of the library `datasets`; None for other objects.

    `datasets` stores the files of a hub repository in a folder named after the commit. Other data are identified by the
    content of their Arrow files. Images and videos that these only refer to are not included, but each document's are
    compared when its answer is reused.
    """
    files = [Path(file["filename"]) for file in getattr(split, "cache_files", ())]
    commits = {file.parent.name for file in files}
    if len(commits) == 1 and _COMMIT.fullmatch(commit := commits.pop()):
        return f"revision {commit}"
    if files:
        return f"sha256 {sha256(' '.join(map(file_digest, files)).encode()).hexdigest()}"
    if (made := getattr(split, "_fingerprint", None)) is not None:
        return f"datasets {made}"  # in memory
    return None
