"""A check that a server has the decoder of a checkpoint, made before the first document.

A short text is sent twice: as ids, which the server embeds with its own table, and as embeddings from the checkpoint's
table. Both must give the same greedy token; a server with other weights of the same width embeds the ids differently.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vico_eval.engine.decode.server import Failed, Lost, Refused, Server
from vico_eval.errors import ConfigError

TEXTS = ("The number in the picture is", "What is shown here? It is", "0 1 2 3 4 5 6")

WITHOUT = "enable-prompt-embeds"
"""Part of vLLM's message if a server accepts no embeddings."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Probe:
    """The expected responses of a server with a checkpoint's decoder."""

    checkpoint: str
    """The checkpoint's name."""

    sha256: str
    """The checkpoint's digest (`FamilyCheckpoint.identity`)."""

    prompts: Sequence[tuple[Sequence[int], Tensor]]
    """Ids [n] and their embeddings [n, D], on the CPU."""

    end: tuple[str, int]
    """The end-of-text token and its id."""


async def check_server(server: Server, probe: Probe, root: str) -> None:
    """Check that a server has the checkpoint's decoder.

    Args:
        server: a server whose model is known.
        probe: the checkpoint's probe.
        root: location of the server's model, according to the server.

    Raises:
        ConfigError: it accepts no embeddings or has another model; the message gives the evidence.
    """
    exported = _exported_from(root)
    if exported is not None and exported != probe.sha256:
        raise ConfigError(
            f"{server.shown} serves {root}, the decoder of another checkpoint than {probe.checkpoint}. Start it with "
            f"what `vico-eval export-decoder {probe.checkpoint} OUT` makes."
        )
    try:
        text, token = probe.end
        if (found := await server.tokenize(text)) != [token]:
            raise ConfigError(f"{_other(server, probe)}: {text} is {found} there and {[token]} here.")
        for ids, embeddings in probe.prompts:
            asked = {"max_tokens": 1, "temperature": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
            by_ids = await server.complete({**asked, "prompt": list(ids), "add_special_tokens": False})
            by_embeddings = await server.complete({**asked, "prompt_embeds": encoded(embeddings)})
            if by_ids != by_embeddings:
                raise ConfigError(
                    f"{_other(server, probe)}: ids give token {by_ids[0]} and their embeddings {by_embeddings[0]}."
                )
    except (Refused, Failed, Lost) as error:
        words = (str(error) or server.why_lost or type(error).__name__).rstrip(".")
        if WITHOUT in words:
            raise ConfigError(f"{words}. Start the server with --enable-prompt-embeds.") from error
        raise ConfigError(f"{_other(server, probe)}: {words}.") from error


def _other(server: Server, probe: Probe) -> str:
    return f"{server.shown} can't decode for {probe.checkpoint}; it may serve another model"


def _exported_from(root: str) -> str | None:
    """Return the checkpoint digest recorded in an exported decoder, if the server's folder is on this machine."""
    try:
        said: Mapping[str, object] = json.loads((Path(root) / "export.json").read_text(encoding="utf-8"))
        return str(said["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def encoded(embeddings: torch.Tensor) -> str:
    """Encode embeddings [N, D] for vLLM's servers: `torch.save` in base64."""
    buffer = io.BytesIO()
    torch.save(embeddings, buffer)
    return base64.b64encode(buffer.getbuffer()).decode("ascii")
