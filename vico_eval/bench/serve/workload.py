"""The requests of a load: texts with the lengths of Table 4's prompts, or images.

Texts are sent to `/v1/completions`, which LMDeploy, vLLM, SGLang and `transformers serve` all provide. It uses the
prompt unchanged, whereas a chat template would lengthen it. Token ids instead of text would give exact lengths
directly, but `transformers serve` rejects them.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from vico_eval.bench.serve.tokens import TextMaker
from vico_eval.errors import ConfigError
from vico_eval.paths import is_folder
from vico_eval.report.speed.table4 import PROMPTS, VISUAL_TOKENS

QUESTION = "What does the image show? Answer with one word."


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One kind of request."""

    compression: int | None = None
    """Percentage of visual tokens removed; None for images, where the server decides."""

    text_tokens: int | None = None

    @property
    def visual_tokens(self) -> int | None:
        """Number of visual tokens that remain of 10 tiles' 2560. As in the paper, a share of tokens is removed, not of
        tiles: 25% is not a whole number of tiles with 64 tokens."""
        return None if self.compression is None else VISUAL_TOKENS * (100 - self.compression) // 100

    @property
    def prompt_tokens(self) -> int | None:
        """Total number of prompt tokens; None if the server decides it."""
        if self.visual_tokens is None or self.text_tokens is None:
            return None
        return self.visual_tokens + self.text_tokens

    @property
    def title(self) -> str:
        """The name in progress output and tables."""
        return "images" if self.compression is None else f"{self.compression}% gone + {self.text_tokens} text"

    def as_record(self) -> dict[str, Any]:
        """Return the values for the summary."""
        return asdict(self) | {"visual_tokens": self.visual_tokens, "prompt_tokens": self.prompt_tokens}


TABLE_4 = tuple(Setting(compression=compression, text_tokens=text) for text, compression in PROMPTS)
"""Table 4's settings; the first of each row is the baseline of the others."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request without the model's name and the generation settings."""

    path: str
    body: dict[str, Any]
    prompt_tokens: int | None
    """The number of prompt tokens that the server must report; None if unknown."""


class Workload(Protocol):
    """Makes requests."""

    @property
    def settings(self) -> Sequence[Setting]:
        """The settings in the table's order."""

    def request(self, setting: Setting, overhead: int, seed: str) -> Request:
        """Make one request; requests of different seeds share at most the first few tokens.

        Args:
            setting: the kind of request.
            overhead: number of tokens that this server adds to a prompt.
            seed: the seed of its words.
        """


class TextLoad:
    """Prompts of Table 4's lengths."""

    settings = TABLE_4

    def __init__(self, maker: TextMaker) -> None:
        self._maker = maker

    def request(self, setting: Setting, overhead: int, seed: str) -> Request:
        """Make a completion request whose prompt has exactly the setting's tokens by the server's count."""
        assert setting.prompt_tokens is not None
        text = self._maker.text(setting.prompt_tokens - overhead, seed)
        return Request("/v1/completions", {"prompt": text}, setting.prompt_tokens)


class ImageLoad:
    """A folder's images in turn, each with a short question.

    The system message differs between requests, so that no prompt prefix is cached. It is a separate message because
    LMDeploy reads only the first text beside an image.

    Raises:
        ConfigError: the folder has no images or can't be read.
    """

    settings = (Setting(),)

    def __init__(self, folder: Path) -> None:
        try:
            files = sorted(path for path in folder.iterdir() if _is_image(path)) if is_folder(folder) else []
            if not files:
                raise ConfigError(f"{folder} has no images; expected a folder of .jpg, .png or .webp files.")
            self._urls = [_data_url(path) for path in files]
        except OSError as error:
            raise ConfigError(f"--images {folder} can't be read ({error.strerror}: {error.filename}).") from error
        self._next = 0

    @property
    def num_images(self) -> int:
        """Number of distinct images."""
        return len(self._urls)

    def request(self, setting: Setting, overhead: int, seed: str) -> Request:
        """Make a chat request with the next image."""
        del setting, overhead
        url = self._urls[self._next % len(self._urls)]
        self._next += 1
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
        number = hashlib.sha256(seed.encode()).hexdigest()[:16]  # differs from its first character on
        messages = [{"role": "system", "content": f"{number} is this request."}, {"role": "user", "content": content}]
        return Request("/v1/chat/completions", {"messages": messages}, None)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")


def _data_url(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or f"image/{path.suffix.lstrip('.').lower()}"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
