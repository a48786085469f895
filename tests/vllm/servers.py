"""A real vLLM server of a small decoder: started, waited for, killed, started again."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

READY_S = 600
"""A server imports vLLM in two processes, one after the other: half a minute where cores are free, two where not."""

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; by its default a server takes most of the machine's memory
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # each further process imports vLLM anew
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class VllmServer:
    """OpenAI's interface to a decoder, in float32, at a port that stays the same when it is started again."""

    python: Path
    """Of the environment with vLLM."""

    model: Path
    """Folder of the decoder; also the name that the server calls it by."""

    log: Path
    options: tuple[str, ...] = ("--enable-prompt-embeds",)
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; `wait` says when it answers."""
        command = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *self.options],
                env=os.environ | SETTINGS,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended:\n{self.end_of_log()}"
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.5)
        raise TimeoutError(f"no server after {READY_S} s:\n{self.end_of_log()}")

    def kill(self) -> None:
        """As `kill -9` does, with all processes of its own; nothing where it does not run."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Kill it, start it at the same address, and wait."""
        self.kill()
        self.start()
        self.wait()

    def end_of_log(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
