import runpy
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, capsys):
    """Runs a script of `benchmarks` as a program, in this process, which has loaded torch: exit status and stderr."""
    threads = torch.get_num_threads()

    def run(name, *arguments):
        status = 0
        monkeypatch.setattr(sys, "argv", [f"{BENCHMARKS / name}", *arguments])
        try:
            runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
        return status, capsys.readouterr().err

    yield run
    torch.set_num_threads(threads)
