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


def stop_after(out, steps):
    """SIGTERM to this process when the run has logged so many steps."""

    def watch():
        log = out / "log.jsonl"
        while not log.exists() or log.read_text().count("learning_rate") < steps:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
