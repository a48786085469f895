"""Run a training stage in every process: `accelerate launch -m vico_eval.training consistency CONFIG`."""

from __future__ import annotations

import sys

from vico_eval.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
