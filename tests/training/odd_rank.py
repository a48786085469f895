"""Run by `test_two_processes` on two processes: a loss that is NaN on the second alone stops both."""

import sys
from pathlib import Path

import torch

from vico_eval.training.config import read_consistency
from vico_eval.training.loop.finite import NotFinite
from vico_eval.training.models.pair import PolicyAndReference
from vico_eval.training.stages import train_consistency


def main():
    forward = PolicyAndReference.forward

    def compute(self, batch, routings):
        result = forward(self, batch, routings)
        is_odd = self.training and torch.distributed.get_rank() == 1
        return result._replace(kl=result.kl * float("nan")) if is_odd else result

    PolicyAndReference.forward = compute
    try:
        train_consistency(read_consistency(Path(sys.argv[1])))
    except NotFinite as error:
        sys.stdout.write(f"stopped: {error}\n")


if __name__ == "__main__":
    main()
