"""What the tests of whole runs look at, and how they stop one."""

import json
import os
import signal
import threading
import time

import yaml
from safetensors.torch import load_file


def log_of(out, name="loss"):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {(line["phase"], line["step"]): line[name] for line in lines if name in line and "phase" in line}


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def write_config(folder, settings, **changes):
    values = {**settings, **changes}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({name: str(value) if name == "out" else value for name, value in values.items()}))
    return path


def finish(programs, log):
    """What programs of `start_loaded` say, at their end."""
    statuses = [program.wait(300) for program in programs]
    assert statuses == [0] * len(programs), log.read_text()
    return log.read_text()


def wait_for_checkpoint(out, program, log):
    """Until a run has its first checkpoint behind the warm-up."""
    deadline = time.monotonic() + 300
    while not list(out.glob("checkpoints/train/*/progress.json")):
        assert program.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stop_after(out, steps):
    """SIGTERM to this process when the run has logged so many steps."""

    def watch():
        log = out / "log.jsonl"
        while not log.exists() or log.read_text().count("learning_rate") < steps:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
