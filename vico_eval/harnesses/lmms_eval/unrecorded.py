"""lmms-eval runs started by other programs: a record made from the results file, and the meaning of blank answers."""

from pathlib import Path

from vico_eval.harnesses.lmms_eval.results_files import Results, begun, model_arguments, run_settings
from vico_eval.runs.json_text import validate
from vico_eval.runs.schema import LMMS_EVAL, VERSION, Checkpoint, RunRecord

BLANK = "blank, and without token counts it can't be told from a failure, which lmms-eval scores as wrong"
"""Why a document of such a run counts as unanswered."""


def lmms_eval_record(folder: Path, results: Results) -> RunRecord:
    """Make a run's record from lmms-eval's results file.

    Raises:
        ReportError: its date is unreadable.
    """
    config = results.content["config"]
    model, arguments = str(config.get("model")), model_arguments(config.get("model_args"))
    # lmms-eval's own reading of `pretrained=` and what other models call it.
    checkpoint = str(arguments.pop("pretrained", None) or results.content.get("model_name") or "")
    name = Path(checkpoint).name
    settings = {
        key: value for key, value in run_settings(results.content).items() if key not in ("model", "model_args")
    }
    said = {
        "version": VERSION,
        "system": model,
        "title": f"{name} ({model})" if name else model,
        "command": (),
        # lmms-eval's term: branch and commit of the folder that it was started in, whatever that contains.
        "versions": {"lmms_eval_version": results.content.get("lmms_eval_version")},
        "checkpoint": Checkpoint(name=name or model, path=checkpoint, sha256=None),
        "donor": None,
        "method": model,
        "method_args": arguments,
        "settings": settings | {"batch_size": config.get("batch_size")},
        "dtype": None,
        "attention": None,
        "device": config.get("device"),
        "num_processes": None,
        "started": begun(results.path, results.content),
        "harness": LMMS_EVAL,
        "made_from": results.path.relative_to(folder).as_posix(),
    }
    return validate(RunRecord, said, str(results.path))


def blanks_count(task: str, number: int, documents: int) -> str:
    """Return the note for readers if blank answers count."""
    return (
        f"{task}: {number} of {documents} answers are blank or missing and, as asked for, count as lmms-eval scored "
        "them: as wrong, or as a guess where the task guesses for unreadable ones. Some may be failures."
    )
