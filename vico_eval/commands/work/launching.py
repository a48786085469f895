"""Processes of a training: `vico-eval train` again, in each of several that know each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vico_eval.errors import ConfigError


def launch(arguments: Sequence[str | Path], processes: int | None, accelerate_config: Path | None = None) -> None:
    """Run `vico-eval train ARGUMENTS` in several processes; ends this one with status 1 where they fail.

    Args:
        arguments: of the command.
        processes: how many; None leaves it to `accelerate_config`.
        accelerate_config: accelerate's own configuration; without one the processes are on this machine.

    Raises:
        ConfigError: there is no such configuration.
    """
    if accelerate_config is not None and not accelerate_config.is_file():
        raise ConfigError(f"{accelerate_config} is not a file; make one with: accelerate config --config_file FILE.")
    command = [sys.executable, "-m"]
    if accelerate_config is None:
        # Without a configuration accelerate's launcher starts one process, whatever the number, where there is no GPU.
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    else:
        command += ["accelerate.commands.launch", "--config_file", str(accelerate_config)]
        if processes is not None:
            command += ["--num_processes", str(processes)]
    command += ["-m", "vico_eval.training", *map(str, arguments)]
    # In a group of its own, so that it is told once: the launcher passes on what it gets where it starts several.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait()
    finally:
        # Whoever stops this command stops the run, which saves before it ends.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if status:
        sys.exit(1)
