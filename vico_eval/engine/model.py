"""The engine from Python, for notebooks and scripts: one question, or many documents by several methods."""

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
        """The model's answer to one question about images or a video, with its token account.

        Args:
            question: text; the images stand in front of it, in order.
            images: one image or several: open ones, paths or the bytes of image files.
            video: path of a video file.
            **generation: fields of `GenerationSettings` (max_new_tokens, do_sample, temperature, ...).

        Raises:
            DocumentError: an image or video that can't be read.
            ConfigError: an unknown generation argument.
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
    """A question about images or a video, for `compare`; arguments as of `Model.ask`.

    Args:
        question: text.
        images: one image or several.
        video: path of a video file.
        key: names the document in answers and errors, and is what methods with chance draw by; one a request.
        thinking: whether answers are sampled as InternVL's authors do in thinking mode; give it to `compare` too.
        **generation: fields of `GenerationSettings`.

    Raises:
        ConfigError: an unknown generation argument, or a value outside its range.
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
        method: name of a method, or several joined by `+` (`vico-eval methods` lists them).
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
    """What several methods answer to the same requests, in one pass over them.

    Pictures and films are read, cut and encoded once for all methods; each gives the answers that it gives alone.

    Args:
        pretrained: a folder, a hub id or a built-in checkpoint; all methods run on its weights.
        methods: names, or names with hyper-parameters, as in `{"method": "divprune", "keep_ratio": 0.5}`.
        requests: made by `request`, or deferred ones, whose pictures are opened when their turn comes.
        show_progress: a progress bar on stderr.
        **arguments: fields of `EngineSettings`, the same for all methods.

    Returns:
        By method, in order, by request, in order: the answer, or why this method has none.

    Raises:
        ConfigError: no method, an unknown or impossible argument, or an argument that methods can't share.
        CheckpointError: a checkpoint that is missing, incomplete, or lacks what a method needs.

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
