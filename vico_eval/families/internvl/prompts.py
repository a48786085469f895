"""Conversation templates of InternVL checkpoints, and the tokens around an image's visual tokens.

Source: the conversation code released with InternVL 2.5, 3 and 3.5, with equal strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vico_eval.errors import ConfigError

IMAGE_MARK = "<image>"
IMAGE_START = "<img>"
IMAGE_END = "</img>"
IMAGE_TOKEN = "<IMG_CONTEXT>"

_PUYU_MESSAGE = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_WANXIANG_MESSAGE = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)

THINKING_SYSTEM_MESSAGE = (
    "You are an AI assistant that rigorously follows this response protocol:\n\n"
    "1. First, conduct a detailed analysis of the question. Consider different angles, potential solutions, and "
    "reason through the problem step-by-step. Enclose this entire thinking process within <think> and </think> "
    "tags.\n\n"
    "2. After the thinking section, provide a clear, concise, and direct answer to the user's question. Separate "
    "the answer from the think section with a newline.\n\n"
    "Ensure that the thinking process is thorough but remains focused on the query. The final answer should be "
    "standalone and not reference the thinking section."
)
"""InternVL3.5's system message for thinking mode, from its model card. Any other wording is another mode."""


@dataclass(frozen=True)
class Template:
    """A conversation template: a head per role, and the end of every message."""

    system_head: str
    user_head: str
    assistant_head: str
    end: str
    """Follows every message; `stop` is the token in it."""

    system_message: str
    """Used if neither checkpoint nor caller sets one."""

    @property
    def stop(self) -> str:
        """The token that ends an answer."""
        return self.end.strip()

    @property
    def markers(self) -> tuple[str, ...]:
        """Control tokens that structure the conversation, which user text must not contain."""
        heads = (self.system_head, self.user_head, self.assistant_head)
        return tuple(dict.fromkeys([*(head[: head.index(">") + 1] for head in heads), self.stop]))

    def render(self, turns: Sequence[tuple[str, str]], system: str | None = None) -> str:
        """Return the conversation up to the assistant's answer.

        Args:
            turns: (role, text), role `user` or `assistant`.
            system: system message; None uses the template's, an empty one is an empty message.
        """
        heads = {"user": self.user_head, "assistant": self.assistant_head}
        message = self.system_message if system is None else system
        parts = [self.system_head, message, self.end]
        for role, text in turns:
            parts += [heads[role], text, self.end]
        return "".join([*parts, self.assistant_head])


def _im_template(end: str, system_message: str) -> Template:
    return Template(
        "<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n", end=end, system_message=system_message
    )


TEMPLATES: dict[str, Template] = {
    "internvl2_5": _im_template("<|im_end|>\n", _WANXIANG_MESSAGE),
    "Hermes-2": _im_template("<|im_end|>", _PUYU_MESSAGE),
    "internlm2-chat": _im_template("<|im_end|>", _PUYU_MESSAGE),
    "phi3-chat": Template("<|system|>\n", "<|user|>\n", "<|assistant|>\n", end="<|end|>", system_message=_PUYU_MESSAGE),
}


def get_template(name: str) -> Template:
    """Return the template in a checkpoint's `template` field.

    Raises:
        ConfigError: the template is unknown; the message lists the known ones.
    """
    if name not in TEMPLATES:
        raise ConfigError(
            f"Unknown conversation template {name!r}; known are {', '.join(TEMPLATES)}. "
            "It comes from the checkpoint's `template` field."
        )
    return TEMPLATES[name]
