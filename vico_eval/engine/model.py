"""The Python interface for notebooks and scripts: single questions, or many documents by several methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vico_eval.engine.loading import Opened, find_engine, open_engine, open_rows
from vico_eval.engine.requests import (
    THINKING_GENERATION,
    DeferredRequest,
    GenerationSettings,
    ImageInput,
    ImageSource,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.engine.row import Answer
from vico_eval.errors import ConfigError, DocumentError


class Model:
    """A checkpoint with a method."""

    def __init__(self, opened: Opened) -> None:
        self.engine = opened.engine
        self.method = opened.method
        self._is_thinking = opened.settings.thinking

    def ask(
        self,
        question: str,
        images: ImageSource | Iterable[ImageSource] | None = None,
        video: str | Path | None = None,
        **generation: Any,
    ) -> Answer:
        """Answer a question about images or a video, with the token account.

        Args:
            question: text, which follows the images in the prompt.
            images: one or more images: open images, paths or the bytes of image files.
            video: path of a video file.
            **generation: fields of `GenerationSettings` (max_new_tokens, do_sample, temperature, ...).

        Raises:
            DocumentError: an image or video can't be read.
            ConfigError: a generation argument is unknown.
        """
        return self.engine.answer([request(question, images, video, thinking=self._is_thinking, **generation)])[0]


def request(
    question: str,
    images: ImageSource | Iterable[ImageSource] | None = None,
    video: str | Path | None = None,
    *,
    key: str = "ask",
    thinking: bool = False,
    **generation: Any,
) -> Request:
    """Make a request about images or a video, for `compare`; see `Model.ask`.

    Args:
        question: text.
        images: one image or several.
        video: path of a video file.
        key: names the document in answers and errors and seeds stochastic methods; unique per request.
        thinking: sample answers as InternVL's authors do in thinking mode; pass it to `compare` as well.
        **generation: fields of `GenerationSettings`.

    Raises:
        ConfigError: a generation argument is unknown or out of range.
    """
    several = [images] if isinstance(images, ImageSource) else [] if images is None else images
    media = [ImageInput(image) for image in several] + ([VideoInput(video)] if video is not None else [])
    return Request(
        key=key,
        messages=(Message("user", (*media, Text(question))),),
        generation=GenerationSettings.from_gen_kwargs(generation, **(THINKING_GENERATION if thinking else {})),
    )


def load(pretrained: str | Path, method: str = "vanilla", **arguments: Any) -> Model:
    """Load a checkpoint with a method.

    Args:
        pretrained: a folder, a hub id or a built-in checkpoint.
        method: name of a method, or several joined by `+`; `vico-eval methods` lists them.
        **arguments: fields of `EngineSettings` and hyper-parameters of the method.

    Example:
        >>> import vico_eval
        >>> model = vico_eval.load("vico-tiny", method="vico")
        >>> answer = model.ask("What number is shown?", images=["page.png"])
        >>> answer.text, answer.account.visual_tokens
    """
    return Model(open_engine({"pretrained": pretrained, "method": method, **arguments}, show_progress=False))


def compare(
    pretrained: str | Path,
    methods: Sequence[str | Mapping[str, Any]],
    requests: Sequence[Request | DeferredRequest],
    *,
    show_progress: bool = False,
    **arguments: Any,
) -> list[list[Answer | DocumentError]]:
    """Answer the same requests by several methods, in one pass.

    Images and videos are read, tiled and encoded once for all methods. Each method gives the same answers as alone.

    Args:
        pretrained: a folder, a hub id or a built-in checkpoint, used by all methods.
        methods: names, or names with hyper-parameters, as in `{"method": "divprune", "keep_ratio": 0.5}`.
        requests: results of `request`, or deferred requests, whose images are opened when they are needed.
        show_progress: show a progress bar on stderr.
        **arguments: fields of `EngineSettings`, the same for all methods.

    Returns:
        For each method, in order, a list with the answer to each request, in order, or the error that prevented it.

    Raises:
        ConfigError: there is no method, or an argument is unknown, invalid, or can't be shared by the methods.
        CheckpointError: the checkpoint is missing, incomplete, or lacks parts that a method needs.

    Example:
        >>> import vico_eval
        >>> page = vico_eval.request("What number is shown?", images="page.png", key="page")
        >>> methods = ["vanilla", {"method": "fastv", "keep_ratio": 0.5}]
        >>> whole, half = vico_eval.compare("vico-tiny-base", methods, [page])
        >>> whole[0].text, half[0].text, half[0].account.mean_layer_tokens
    """
    if isinstance(methods, str | Mapping) or not methods:
        raise ConfigError(
            f"methods is {methods!r}; expected a list with at least one method, as in ['vanilla', 'vico']."
        )
    given = [{"method": method} if isinstance(method, str) else dict(method) for method in methods]
    found = [find_engine({"pretrained": pretrained, **arguments, **method}) for method in given]
    engine = open_rows(found, show_progress=show_progress)
    outcomes: list[dict[int, Answer | DocumentError]] = [{} for _ in found]
    for row, number, outcome in engine.row_outcomes(requests, known=[()] * len(found)):
        outcomes[row][number] = outcome
    return [[of_row[number] for number in range(len(requests))] for of_row in outcomes]
