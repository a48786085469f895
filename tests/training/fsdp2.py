"""Run by `test_fsdp2`: processes on the CPU that share a model's weights as GPUs do (FSDP2 of accelerate)."""

import json
import resource
import sys
from pathlib import Path

import psutil
from accelerate import PartialState
from accelerate.utils import DistributedType

from vico_eval.cli import main as vico_eval
from vico_eval.training.config import read_consistency
from vico_eval.training.loop.accelerated import make_accelerator
from vico_eval.training.loop.schedule import optimizing
from vico_eval.training.stages import _build, _unfreeze


def measure_memory(path):
    """Print by how many bytes this process grew at most while stage 1's models were loaded and shared."""
    config = read_consistency(Path(path))
    accelerator = make_accelerator(config)
    accelerator.wait_for_everyone()
    before = psutil.Process().memory_info().rss
    trainee = _build(config, accelerator)
    _unfreeze(trainee, config)
    accelerator.prepare(trainee.pair, *optimizing(trainee.pair, config.train).optimizers)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    sys.stdout.write(json.dumps({"rank": accelerator.process_index, "grown": grown}) + "\n")


def main():
    PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU  # accelerate shards on no other processes
    if sys.argv[1] == "memory":
        measure_memory(sys.argv[2])
    else:
        vico_eval(["train", *sys.argv[1:]])


if __name__ == "__main__":
    main()
