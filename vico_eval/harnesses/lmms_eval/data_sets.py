"""By what a task's data are known again: the revision of a hub's repository, or the content of files."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from vico_eval.digests import file_digest

_COMMIT = re.compile(r"[0-9a-f]{40}")


def split_fingerprint(split: Any) -> str | None:
    """Of a split of the library `datasets`; None where it is something else.

    What `datasets` made of a hub's repository lies in a folder that is named by the commit. All else is known by the
    content of its Arrow files; pictures and films that these only name do not count, but each document's are compared
    when its answer is taken over.
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
