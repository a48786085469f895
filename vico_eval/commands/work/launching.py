"""Processes of a training: `vico-eval train` is run again in each of several connected processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vico_eval.errors import ConfigError


def launch(arguments: Sequence[str | Path], processes: int | None, accelerate_config: Path | None = None) -> None:
    """Run `vico-eval train ARGUMENTS` in several processes. If they fail, this one exits with status 1.

    Args:
        arguments: the command's arguments.
        processes: number of processes; None if `accelerate_config` decides.
        accelerate_config: accelerate's own configuration; without it, the processes are on this machine.

    Raises:
        ConfigError: the configuration is missing.
    """
    if accelerate_config is not None and not accelerate_config.is_file():
        raise ConfigError(f"{accelerate_config} is not a file; make one with: accelerate config --config_file FILE.")
    command = [sys.executable, "-m"]
    if accelerate_config is None:
        # Without a configuration and a GPU, accelerate's launcher always starts one process.
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    else:
        command += ["accelerate.commands.launch", "--config_file", str(accelerate_config)]
        if processes is not None:
            command += ["--num_processes", str(processes)]
    command += ["-m", "vico_eval.training", *map(str, arguments)]
    # In its own process group, so that it gets a signal once: the launcher forwards signals to several processes.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait()
    finally:
        # Stopping this command stops the training, which saves before it ends.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if status:
        sys.exit(1)
