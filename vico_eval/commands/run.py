"""`vico-eval run`: fill a table of a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import completion, options
from vico_eval.commands.arguments import parse_arguments, parse_names


def run(
    suite: Annotated[
        str,
        typer.Argument(
            help="Suite to run, one per table: vico-table1, -2, -3, -5, -6, vico-baselines, qwen-vl, tops, avtp, tiny.",
            autocompletion=completion.suites,
        ),
    ],
    rows: Annotated[
        str | None,
        options.rows(
            "Systems or installed methods to run, separated by commas, or all. Default: the rows that the suite lists."
        ),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            help="Token budgets for methods that would otherwise match ViCO's, one run each: shares of the visual "
            "tokens, averaged over the decoder's layers, as in 0.5,0.25 or 192,128,64/576."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        options.checkpoint(
            "Size (8B), a folder or a hub id for all rows, or base=...,vico=... for each kind of weights. Suites on "
            "the built-in benchmark have their own."
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks of the suite to run, separated by commas, named as in tasks/benchmarks.yaml. Default: all."
        ),
    ] = None,
    limit: Annotated[
        int | None, options.limit("Number of documents of each task, from its first on. Default: all.")
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=options.MAX_PROCESSES,
            help="Number of processes that share a row's documents, over all machines.",
        ),
    ] = 1,
    gpus_per_process: Annotated[
        int | None,
        typer.Option(min=1, max=options.MAX_GPUS, help="GPUs to spread one model over, if it is too large for one."),
    ] = None,
    jobs: Annotated[
        int | None,
        options.jobs("Number of passes at once, each on its own GPUs. Default: 1; on a CPU one per core, at most 4."),
    ] = None,
    machines: Annotated[
        int,
        typer.Option(
            min=1,
            max=options.MAX_PROCESSES,
            help="Number of machines that share a row's documents; needs --launch.",
        ),
    ] = 1,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration file of accelerate for the processes of a row. With several machines, start the "
            "command on each of them, with its own machine_rank in the file."
        ),
    ] = None,
    launch: Annotated[
        str,
        typer.Option(
            help="Prefix for every command that is started, as in 'srun --gres=gpu:8'. It is split like shell words, "
            "but no shell runs it."
        ),
    ] = "",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER/TOTAL",
            help="Answer only this shard of each row's documents, as in 2/8. The last shard to finish scores the row.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, options.batch_size("Documents per batch. Default: 8; 32 with the built-in checkpoints.")
    ] = None,
    device: options.Device = None,
    engine: Annotated[
        str, typer.Option(help="Engine that decodes: transformers, or vllm (for rows without a method in the decoder).")
    ] = "transformers",
    server: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address of a vLLM server, as in http://a:8000; or several joined by /, a file with one per line, or "
            "base=...,vico=... for each kind of weights. Default: vLLM runs in the process of each row.",
        ),
    ] = "",
    model_args: options.ModelArgs = "",
    seeds: Annotated[int, options.seeds()] = 1,
    fixtures: Annotated[
        bool,
        typer.Option("--fixtures", help="Rehearse without network on small local data sets of the same schemas."),
    ] = False,
    judge: Annotated[
        bool, typer.Option("--judge", help="Also run benchmarks that need a judge model for their scores.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what is finished, the passes left and all commands, without running them."
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run finished cells again; the old answers are moved aside.")
    ] = False,
    no_shared_pass: options.SeparateRows = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the table. Default: next to the runs.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Folder for the HTML page with its samples. Default: next to the runs."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print the plan as JSON, for scripts.")
    ] = False,
) -> None:
    """Evaluate the rows of a table on its benchmarks.

    lmms-eval asks the questions and scores the answers. Rows on the same weights share a pass: one process answers
    for all of them, and each answers as it would alone. Each row is also an lmms-eval command that --dry-run prints
    and that you can run by hand. Answers are saved as they come, so repeating a stopped command resumes it. A
    failed benchmark does not stop the others; the last lines name it and how to repeat it. Runs, logs, the table
    and its page are written under runs/. docs/many-nodes.md shows how to spread rows and documents over GPUs and
    machines.

    \b
    Examples:
      vico-eval run tiny --rows divprune,visionzip,fastv --budgets 0.75,0.5,0.25,0.1
      vico-eval run vico-table1 --checkpoint 38B --rows vanilla,vico --processes 4 --gpus-per-process 2 --shard 1/8
    """
    if as_json and not dry_run:
        raise typer.BadParameter("needs --dry-run, whose plan it prints.", param_hint="--json")
    from vico_eval.budgets import parse_budgets
    from vico_eval.commands.work.launcher import Launching, split_prefix
    from vico_eval.commands.work.options import RunOptions, parse_servers
    from vico_eval.commands.work.run import run_suite
    from vico_eval.runs.shards import parse_shard

    launching = Launching(
        processes=processes,
        gpus_per_process=gpus_per_process,
        machines=machines,
        accelerate_config=accelerate_config,
        prefix=split_prefix(launch),
    )

    chosen = RunOptions(
        rows=parse_names(rows, "--rows"),
        budgets=() if budgets is None else parse_budgets(budgets, "--budgets"),
        benchmarks=parse_names(benchmark, "--benchmark"),
        checkpoint=checkpoint,
        limit=limit,
        fixtures=fixtures,
        judge=judge,
        num_seeds=seeds,
        launching=launching,
        shard=None if shard is None else parse_shard(shard),
        jobs=jobs,
        batch_size=batch_size,
        device=device,
        engine=engine,
        servers=parse_servers(server),
        model_args=parse_arguments(model_args, "--model-args"),
        out=out,
        fresh=fresh,
        shared_pass=not no_shared_pass,
        html=html,
    )
    run_suite(suite, chosen, dry_run=dry_run, as_json=as_json)
