"""Reuse of earlier answers: what each document asked, so that an answer is only reused for the same text and images.

A task's documents keep their numbers if its files are replaced, and images are only opened when needed. An answer is
therefore looked up by what is known in advance (`answer_keys`). Before it is reused, its document is read again and
compared, without running the model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from vico_eval.digests import text_digest
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import DeferredRequest, ImageInput, Request, Text, VideoInput
from vico_eval.errors import DOCUMENT_FAILURES, UserError
from vico_eval.logs import logger
from vico_eval.runs.schema import AnswerKey, StoredAnswer
from vico_eval.runs.write import Asked, RunFolder

SILENT_S = 5
"""Seconds after which a comparison shows its progress."""

READERS = 2
"""Number of threads, as for answering."""


def answer_keys(requests: Iterable[Request | DeferredRequest], questions: Iterable[str]) -> list[AnswerKey]:
    """Return the key under which each request's answer is stored.

    Args:
        requests: the requests.
        questions: the text of each, as far as it is known before images are opened.
    """
    times: Counter[str] = Counter()
    keys = []
    for request, question in zip(requests, questions, strict=True):
        asked = f"{text_digest(repr(request.generation))}-{text_digest(question)}"
        keys.append((request.key, times[request.key], asked))
        times[request.key] += 1
    return keys


def asked_by(request: Request) -> Asked:
    """Return fingerprints of a created request, from file metadata without reading files."""
    words = [
        [message.role, [part.text if isinstance(part, Text) else _place_of(part) for part in message.content]]
        for message in request.messages
    ]
    pixels = [request.min_pixels, request.max_pixels]
    limits = [request.max_tiles, request.total_max_tiles, *(pixels if pixels != [None, None] else [])]
    return Asked(
        words=text_digest(json.dumps([words, *limits])),
        files=_files_of(request),
    )


class Asking:
    """Requests whose content is recorded when they are created."""

    def __init__(self, requests: Sequence[DeferredRequest]) -> None:
        self.requests = [
            replace(request, load=partial(self._load, number, request.load)) for number, request in enumerate(requests)
        ]
        """The requests that are recorded when created."""

        self.made: dict[int, Asked] = {}
        """By number, the fingerprints of requests created so far."""

        self._media: dict[tuple[int, str], str | None] = {}
        """By number and tiling, digests of the images compared so far, which several rows may need."""

    def _load(self, number: int, load: Callable[[], Request]) -> Request:
        request = load()
        self.made[number] = asked_by(request)
        return request

    def changed(
        self, stored: Mapping[int, StoredAnswer], preprocessor: Preprocessor, *, show_progress: bool = False
    ) -> list[int]:
        """Return the numbers of requests that have changed since their answer was stored.

        Args:
            stored: answers by request number.
            preprocessor: prepares a request for comparison.
        """
        with (
            ThreadPoolExecutor(READERS, thread_name_prefix="compare") as pool,
            tqdm(total=len(stored), unit="doc", desc="compared", delay=SILENT_S, disable=not show_progress) as bar,
        ):
            found = []
            same = pool.map(lambda number: self._is_the_same(number, stored[number], preprocessor), stored)
            for number, is_same in zip(stored, same, strict=True):
                bar.update()
                if not is_same:
                    found.append(number)
        return found

    def _is_the_same(self, number: int, answer: StoredAnswer, preprocessor: Preprocessor) -> bool:
        try:
            request = self.requests[number].load() if number not in self.made else None
            asked = self.made[number]
            if answer.words not in (None, asked.words):
                return False
            if answer.files is not None and answer.files == asked.files:
                return True
            place = number, preprocessor.tiling
            if place not in self._media:
                self._media[place] = preprocessor(request or self.requests[number]).media
            media = self._media[place]
        except (UserError, *DOCUMENT_FAILURES) as error:
            # It is asked again, and then fails with an error that names it.
            logger.debug(f"document {answer.document} can't be compared: {error}")
            return False
        # Lines of older versions have no fingerprint of images.
        return answer.account.media == media or (answer.account.media is None and answer.account.tiles > 0)


def take_over(
    run: RunFolder,
    keys: Sequence[AnswerKey],
    asking: Asking,
    preprocessor: Preprocessor,
    *,
    unchanged: Container[AnswerKey] = (),
    show_progress: bool = False,
) -> dict[int, StoredAnswer]:
    """Return the answers in a run's folder that can be reused, by request number: those to the same text and images.

    Other answers are moved aside, with a message.

    Args:
        run: the run's folder.
        keys: the requests' keys.
        asking: the requests.
        preprocessor: prepares a request for comparison.
        unchanged: keys of requests that are known to be unchanged.
        show_progress: show a progress bar if the comparison takes long.
    """
    found = {number: run.answers[key] for number, key in enumerate(keys) if key in run.answers}
    compared = {number: answer for number, answer in found.items() if keys[number] not in unchanged}
    stale = {keys[number] for number in asking.changed(compared, preprocessor, show_progress=show_progress)}
    stale |= run.asked_otherwise(keys)
    run.drop_stale(stale)
    if unknown := sum(answer.account.media is None and answer.account.tiles > 0 for answer in found.values()):
        logger.warning(
            f"{unknown} answer(s) were written by an older version without a digest of their pictures; they are "
            "taken over unchecked"
        )
    return {number: answer for number, answer in found.items() if keys[number] not in stale}


def _place_of(part: ImageInput | VideoInput) -> dict[str, object]:
    if isinstance(part, ImageInput):
        return {"image": part.is_inline}
    return {"video": [part.start_s, part.end_s]}


def _files_of(request: Request) -> str | None:
    """Return a fingerprint of paths, sizes and times, if all images and videos are files."""
    parts = (part for message in request.messages for part in message.content)
    sources = [part.source for part in parts if not isinstance(part, Text)]
    states = []
    for source in sources:
        if not isinstance(source, (str, Path)):
            return None
        try:
            state = Path(source).stat()
        except (OSError, ValueError):  # a URL, or missing
            return None
        # The second time (ctime) changes with every write, even if the first (mtime) is set back.
        states.append([str(source), state.st_size, state.st_mtime_ns, state.st_ctime_ns])
    return text_digest(json.dumps(states)) if states else None
