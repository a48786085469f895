"""`accelerate launch -m vico_eval.training consistency CONFIG`: a stage, in every process of a run."""

from __future__ import annotations

import sys

from vico_eval.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
