"""Whether a run asked a benchmark as the catalogue says."""

from typing import NamedTuple

from vico_eval.report.benchmarks import Benchmark
from vico_eval.runs.results import Run


class Asked(NamedTuple):
    """How a run asked a benchmark, against the catalogue."""

    is_other: bool
    """It was started with other arguments, so its score is not the benchmark's."""

    note: str


def asked_otherwise(benchmark: Benchmark, run: Run) -> Asked:
    """Whether a run's model was started with what the catalogue asks for the benchmark, such as frames or thinking."""
    said = {**run.record.method_args, **run.record.settings}
    place = f"{benchmark.title} of {run.folder.name}"
    unknown = []
    for name, wanted in benchmark.model_args.items():
        if name not in said:
            unknown.append(f"{name}={wanted}")
        # Arguments of other programs are text.
        elif str(said[name]).lower() != str(wanted).lower():
            return Asked(
                True,
                f"{place} counts as missing, since it was asked with {name}={said[name]}; expected {name}={wanted}.",
            )
    if unknown:
        return Asked(
            False, f"it can't be checked that {place} was asked with {', '.join(unknown)}: the run doesn't say."
        )
    return Asked(False, "")
