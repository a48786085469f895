"""What is sent: text of the length of Table 4's prompts, or images.

Text goes to `/v1/completions` as text: LMDeploy, vLLM, SGLang and `transformers serve` all have it, it takes the prompt
as it is, and what a chat template adds would be a part of the prompt that nobody asked for. Token ids instead of text
would be exact by themselves, but `transformers serve` refuses them.
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
    """Percent of the visual tokens that are gone; None for images, where the server decides."""

    text_tokens: int | None = None

    @property
    def visual_tokens(self) -> int | None:
        """Left of 10 tiles' 2560. 25% is not a number of whole tiles of 64: the paper's is of tokens too."""
        return None if self.compression is None else VISUAL_TOKENS * (100 - self.compression) // 100

    @property
    def prompt_tokens(self) -> int | None:
        """All of a prompt's; None where it is the server's to say."""
        if self.visual_tokens is None or self.text_tokens is None:
            return None
        return self.visual_tokens + self.text_tokens

    @property
    def title(self) -> str:
        """As it stands in progress and tables."""
        return "images" if self.compression is None else f"{self.compression}% gone + {self.text_tokens} text"

    def as_record(self) -> dict[str, Any]:
        """For the summary."""
        return asdict(self) | {"visual_tokens": self.visual_tokens, "prompt_tokens": self.prompt_tokens}


TABLE_4 = tuple(Setting(compression=compression, text_tokens=text) for text, compression in PROMPTS)
"""Table 4's, each row's first the one that the others are relative to."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, less the model's name and how it is answered."""

    path: str
    body: dict[str, Any]
    prompt_tokens: int | None
    """That the server has to report; None if not known."""


class Workload(Protocol):
    """Makes requests."""

    @property
    def settings(self) -> Sequence[Setting]:
        """In the table's order."""

    def request(self, setting: Setting, overhead: int, seed: str) -> Request:
        """One request; no two seeds share more than the first few tokens.

        Args:
            setting: which kind.
            overhead: tokens that this server counts besides ours.
            seed: of its words.
        """


class TextLoad:
    """Prompts of Table 4's lengths."""

    settings = TABLE_4

    def __init__(self, maker: TextMaker) -> None:
        self._maker = maker

    def request(self, setting: Setting, overhead: int, seed: str) -> Request:
        """A completion whose prompt the server counts as exactly the setting's tokens."""
        assert setting.prompt_tokens is not None
        text = self._maker.text(setting.prompt_tokens - overhead, seed)
        return Request("/v1/completions", {"prompt": text}, setting.prompt_tokens)


class ImageLoad:
    """A folder's images in turn, each with a short question.

    The system message differs from request to request, so that no prefix of the prompt is in a cache. LMDeploy reads
    only the first text beside an image, which is why it is a message of its own.

    Raises:
        ConfigError: no images.
    """

    settings = (Setting(),)

    def __init__(self, folder: Path) -> None:
        try:
            files = sorted(path for path in folder.iterdir() if _is_image(path)) if is_folder(folder) else []
            if not files:
                raise ConfigError(f"{folder} holds no images; expected a folder of .jpg, .png or .webp files.")
            self._urls = [_data_url(path) for path in files]
        except OSError as error:
            raise ConfigError(f"--images {folder} can't be read ({error.strerror}: {error.filename}).") from error
        self._next = 0

    @property
    def num_images(self) -> int:
        """Different ones."""
        return len(self._urls)

    def request(self, setting: Setting, overhead: int, seed: str) -> Request:
        """A chat message with the next image."""
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
