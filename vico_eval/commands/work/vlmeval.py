"""`vico-eval vlmeval run`: evaluation of our models by VLMEvalKit.

VLMEvalKit finds models in a public dictionary and has no hook for other packages. This command adds our models to it
and calls VLMEvalKit's command line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vico_eval.commands.arguments import parse_arguments
from vico_eval.commands.output import check_writable, message_console
from vico_eval.errors import ConfigError, OutputError, ReportError
from vico_eval.harnesses.lmms_eval.kinds import INTERNVL, QWEN2_5_VL, QWEN3_VL, Kind, kind_of_checkpoint
from vico_eval.harnesses.vlmevalkit.results import check_evaluated, read_run
from vico_eval.runs.read import read_record
from vico_eval.runs.schema import VLMEVALKIT, RunRecord
from vico_eval.runs.staleness import other_conditions
from vico_eval.runs.write import RunFolder
from vico_eval.suites import load_benchmarks

if TYPE_CHECKING:
    from vico_eval.engine.requests import GenerationSettings
    from vico_eval.harnesses.vlmevalkit.adapter import CompressedModel

MAX_NEW_TOKENS = 4096
"""VLMEvalKit's settings of InternVL without thinking mode."""

QWEN2_5_GENERATION = {"max_new_tokens": 2048}
"""Settings of VLMEvalKit's Qwen2.5-VL class, which samples with `top_k=1`."""

QWEN3_GENERATION = {"max_new_tokens": 16384, "do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
"""Settings of VLMEvalKit's Qwen3-VL entries. (Its runs on vLLM also have a presence penalty.)"""

_GENERATION: Mapping[str, dict[str, Any]] = {
    INTERNVL.name: {"max_new_tokens": MAX_NEW_TOKENS},
    QWEN2_5_VL.name: QWEN2_5_GENERATION,
    QWEN3_VL.name: QWEN3_GENERATION,
}

NOT_OURS = {
    "batch_size": "VLMEvalKit asks one document at a time",
    "label_images": "VLMEvalKit writes the labels of pictures",
    "fps": "VLMEvalKit's data sets of videos say how many frames are shown; name one such as Video-MME_64frame",
    "num_frames": "VLMEvalKit takes the frames of videos; name a data set such as Video-MME_64frame",
}
"""Model arguments without effect, and the reason."""


def run_vlmeval(
    *,
    data: Sequence[str],
    pretrained: str,
    method: str,
    model_args: str,
    gen_kwargs: str,
    work_dir: Path,
    limit: int | None,
    judge: str,
) -> None:
    """Evaluate a method on data sets, one after the other.

    A repeated command resumes. The first document that can't be answered ends it.

    Args:
        data: names of data sets in VLMEvalKit's `--data`.
        pretrained: a folder, a hub id or a built-in checkpoint.
        method: name of a method, or several joined by `+`.
        model_args: further arguments of engine and method, and `previews` (true, false or a folder), `k=v,...`.
        gen_kwargs: fields of `GenerationSettings`, `k=v,...`.
        work_dir: the run's folder; VLMEvalKit's files go to `<work_dir>/<method>`.
        limit: number of first documents of each data set; VLMEvalKit has no limit for videos.
        judge: VLMEvalKit's name of a judge model, or `exact_matching` for none.

    Raises:
        ConfigError: VLMEvalKit isn't installed, or an argument is invalid.
        OutputError: `work_dir` has another run.
        UserError: a data set has no score, or a document can't be answered; the message names it.
    """
    if find_spec("vlmeval") is None:
        raise ConfigError(
            "VLMEvalKit is not installed in this environment. It needs other versions than lmms-eval, so install it in "
            "an environment of its own: pip install 'vico-eval[vlmeval]', or, in a clone, make setup-vlmeval and then "
            ".venv-vlmeval/bin/vico-eval vlmeval run ..."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "several processes were started; expected one. Spread a model over GPUs with --model-args device_map=auto."
        )
    if not data:
        raise ConfigError("no data set was given; expected names such as --data MMStar,POPE.")
    judged = {entry.vlmevalkit.dataset for entry in load_benchmarks().values() if entry.judge and entry.vlmevalkit}
    if judge == "exact_matching" and (unscored := sorted(judged.intersection(data))):
        raise ConfigError(
            f"{', '.join(unscored)} has no score without another model's judgement; name it with --judge, or leave the "
            "data set out."
        )
    arguments = parse_arguments(model_args, "--model-args")
    for name in NOT_OURS.keys() & arguments.keys():
        raise ConfigError(f"--model-args {name}= has no effect here: {NOT_OURS[name]}.")
    check_writable(work_dir)

    from vico_eval.engine.loading import find_engine
    from vico_eval.engine.previews import check_previews
    from vico_eval.engine.requests import GenerationSettings

    previews = arguments.pop("previews", True)
    check_previews(previews)
    given = {"pretrained": pretrained, "method": method, "label_images": False, **arguments}
    found = find_engine(given)
    thinks = found.settings.thinking or found.preprocessor.prompting.always_thinks
    kind = kind_of_checkpoint(pretrained)
    assert kind is not None, "find_engine refuses other checkpoints"
    generation = GenerationSettings.from_gen_kwargs(
        parse_arguments(gen_kwargs, "--gen-kwargs"), **default_generation(kind, thinks=thinks)
    )
    _set_environment(asks_for_thoughts=thinks and kind is INTERNVL, thinks=thinks)

    from vlmeval.run import main as vlmeval_main

    model, name = _open_model(kind, given, generation, work_dir, previews, {"limit": limit, "judge": judge})
    for task in data:
        model.start(task, kept=work_dir / name)
        command = ["--model", name, "--data", task, "--work-dir", str(work_dir), "--judge", judge, "--reuse"]
        with _as_vlmevalkit(["vlmeval", *command, *(() if limit is None else ("--limit", str(limit)))]):
            vlmeval_main()
        model.note_data()
        if model.failure is not None:
            raise model.failure
        check_evaluated(work_dir / name, task)
    read_run(work_dir)
    message_console().print(f"Scores, record and answers: {work_dir}", markup=False, highlight=False, soft_wrap=True)


def default_generation(kind: Kind, *, thinks: bool) -> dict[str, Any]:
    """Return the generation settings without `--gen-kwargs`: those of VLMEvalKit's own entries of the same kind."""
    if thinks:
        return dict(kind.thinking)
    return _GENERATION[kind.name]


def _set_environment(*, asks_for_thoughts: bool, thinks: bool) -> None:
    """Set VLMEvalKit's environment variables explicitly, so that the run's record has all settings.

    Args:
        asks_for_thoughts: VLMEvalKit has other prompts in thinking mode, as for InternVL.
        thinks: answers start with thoughts, which are not scored.
    """
    os.environ["PRED_FORMAT"] = "tsv"  # spreadsheet cells hold at most 32,767 characters
    os.environ["EVAL_FORMAT"] = "csv"
    os.environ["USE_COT"] = "1" if asks_for_thoughts else "0"
    # MMEVAL_ROOT would replace --work-dir; with SKIP_ERR an error's text would be scored as an answer.
    for name in ("SPLIT_THINK", "MMEVAL_ROOT", "SKIP_ERR"):
        os.environ.pop(name, None)
    if thinks:
        os.environ["SPLIT_THINK"] = "True"


def _open_model(
    kind: Kind,
    arguments: Mapping[str, Any],
    generation: GenerationSettings,
    work_dir: Path,
    previews: Any,
    conditions: Mapping[str, Any],
) -> tuple[CompressedModel, str]:
    """Open the model; its name in VLMEvalKit is the method's."""
    from vlmeval.config import supported_VLM

    from vico_eval.engine.loading import open_engine
    from vico_eval.harnesses.run_record import open_previews, run_record, title_of
    from vico_eval.harnesses.vlmevalkit.models import open_model

    opened = open_engine(arguments, show_progress=False)
    name = opened.method.name
    words = {**asdict(generation), "until": list(generation.until)}  # in the form of JSON, for the comparison
    record = run_record(
        opened,
        title=title_of(opened.method),
        harness=VLMEVALKIT,
        num_processes=1,
        settings={"label_images": True, "generation": words, **conditions},
    )
    if different := _differs(work_dir, record):
        raise OutputError(
            f"{work_dir} holds a run with another {', '.join(different)}, and VLMEvalKit would reuse its answers. "
            "Pass another --work-dir."
        )
    run = RunFolder(work_dir, record, resume=True)
    opened.engine.preprocessor.previews = open_previews(run, previews)
    run.write_record()
    model = open_model(kind, opened.engine, opened.settings, run, generation)
    supported_VLM[name] = lambda: model
    return model, name


def _differs(work_dir: Path, record: RunRecord) -> tuple[str, ...]:
    """Return the conditions in which an earlier run differs; none if there is no run.

    Raises:
        OutputError: its record can't be read.
    """
    try:
        earlier = read_record(work_dir)
    except ReportError as error:
        raise OutputError(f"{error} Put the run's record back, or move {work_dir} away.") from error
    return () if earlier is None else other_conditions(earlier, record)


@contextmanager
def _as_vlmevalkit(arguments: list[str]) -> Iterator[None]:
    """Set the command line, from which VLMEvalKit reads its arguments, and the default handler of SIGTERM, with which
    it stops its scoring processes.

    These are forks of this process; with its handler, which exits Python in order, some would never end.
    """
    before, handler = sys.argv, signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handler)
