"""What a document was asked, so that an answer that is there already is taken over for the same words and pictures.

A task's documents keep their numbers when its files are exchanged, and pictures are opened only when their turn comes.
So an answer is looked for by the little that is known beforehand (`answer_keys`), and before it is taken over, its
document is read again and compared; nothing of that goes through the model.
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
"""Only a comparison that takes longer shows how far it is."""

READERS = 2
"""Threads, as for answering."""


def answer_keys(requests: Iterable[Request | DeferredRequest], questions: Iterable[str]) -> list[AnswerKey]:
    """What the answer of each request is stored under.

    Args:
        requests: what is asked.
        questions: the text of each, as far as it is known before pictures are opened.
    """
    times: Counter[str] = Counter()
    keys = []
    for request, question in zip(requests, questions, strict=True):
        asked = f"{text_digest(repr(request.generation))}-{text_digest(question)}"
        keys.append((request.key, times[request.key], asked))
        times[request.key] += 1
    return keys


def asked_by(request: Request) -> Asked:
    """Fingerprints of a request that has been made. Files are looked at and not read."""
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
    """Requests, of which it is noted what they ask as they are made."""

    def __init__(self, requests: Sequence[DeferredRequest]) -> None:
        self.requests = [
            replace(request, load=partial(self._load, number, request.load)) for number, request in enumerate(requests)
        ]
        """The same ones."""

        self.made: dict[int, Asked] = {}
        """By number, what those that were made so far ask."""

        self._media: dict[tuple[int, str], str | None] = {}
        """By number and tiling, the digest of the pictures that were compared so far; several rows may ask for it."""

    def _load(self, number: int, load: Callable[[], Request]) -> Request:
        request = load()
        self.made[number] = asked_by(request)
        return request

    def changed(
        self, stored: Mapping[int, StoredAnswer], preprocessor: Preprocessor, *, show_progress: bool = False
    ) -> list[int]:
        """Numbers of the requests that now ask something else than when their answer was stored.

        Args:
            stored: answers by number of request.
            preprocessor: makes tiles of a request.
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
            # It is asked again, and then fails by name.
            logger.debug(f"document {answer.document} can't be compared: {error}")
            return False
        # Lines of older versions say nothing of their pictures.
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
    """Answers that a run's folder has already, by number of request: those to the same words and pictures.

    The others are set aside, and said.

    Args:
        run: the folder.
        keys: of the requests.
        asking: the requests.
        preprocessor: makes tiles of one.
        unchanged: keys of requests that are known to be as they were.
        show_progress: where comparing takes long.
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
    """Of paths, sizes and times, where every picture and film is a file."""
    parts = (part for message in request.messages for part in message.content)
    sources = [part.source for part in parts if not isinstance(part, Text)]
    states = []
    for source in sources:
        if not isinstance(source, (str, Path)):
            return None
        try:
            state = Path(source).stat()
        except (OSError, ValueError):  # an address, or not there
            return None
        # The second time changes with every write, also where the first is set back.
        states.append([str(source), state.st_size, state.st_mtime_ns, state.st_ctime_ns])
    return text_digest(json.dumps(states)) if states else None
