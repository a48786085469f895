"""`vico-eval run` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval import cli_options
from vico_eval.commands.arguments import parse_arguments, parse_names


def run(
    suite: Annotated[
        str,
        typer.Argument(help="Which table: vico-table1, -2, -3, -5, -6, vico-baselines, tops, avtp, qwen-vl, tiny, ..."),
    ],
    rows: Annotated[
        str | None, typer.Option(help="Systems, separated by commas, or all. Default: those that the suite names.")
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            help="Shares of the visual tokens that rows leave which would otherwise take ViCO's, a run each: 0.5,0.25 "
            "or 192,128,64/576, averaged over the decoder's layers."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="A size (8B), a folder or hub id for all rows, or base=...,vico=... for each kind of weights. The "
            "suites on the built-in benchmark have their own."
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(help="Only these of the suite, separated by commas, by their names in tasks/benchmarks.yaml."),
    ] = None,
    limit: Annotated[int | None, cli_options.limit("First documents of each task. Default: all.")] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1, max=cli_options.MAX_PROCESSES, help="Processes that share a row's documents, on all machines."
        ),
    ] = 1,
    gpus_per_process: Annotated[
        int | None,
        typer.Option(
            min=1, max=cli_options.MAX_GPUS, help="GPUs that one model is spread over, for models too large for one."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        cli_options.jobs("Passes at once, each on its own GPUs. Default: one; on a CPU one a core, at most 4."),
    ] = None,
    machines: Annotated[
        int,
        typer.Option(
            min=1,
            max=cli_options.MAX_PROCESSES,
            help="Machines that share a row's documents; needs --launch.",
        ),
    ] = 1,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(
            help="Accelerate's own configuration for a row's processes. With several machines, start the command on "
            "each with a file of its own machine_rank."
        ),
    ] = None,
    launch: Annotated[
        str,
        typer.Option(
            help="Words before each command that is started, as in 'srun --gres=gpu:8'. They are split as a shell "
            "would, and no shell reads them."
        ),
    ] = "",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER/HOW_MANY",
            help="Answer only this part of each row's documents, as in 2/8. Whoever completes a row scores it.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, cli_options.batch_size("Documents at once. Default: 8; 32 with the built-in checkpoints.")
    ] = None,
    device: cli_options.Device = None,
    engine: Annotated[
        str, typer.Option(help="What decodes: transformers, or vllm (rows with no method in the decoder).")
    ] = "transformers",
    server: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="vLLM's, as in http://a:8000, several joined by /, a file with one a line, or base=...,vico=... for "
            "each kind of weights. Default: vLLM runs in each row's process.",
        ),
    ] = "",
    model_args: Annotated[
        str,
        typer.Option(help="Further arguments of every row's model, as in tiles=2x2,dtype=bfloat16."),
    ] = "",
    seeds: Annotated[int, cli_options.seeds("Draws of each row that has chance in it.")] = 1,
    fixtures: Annotated[
        bool,
        typer.Option("--fixtures", help="Take small local data sets of the same schemas: a rehearsal without network."),
    ] = False,
    judge: Annotated[
        bool, typer.Option("--judge", help="Also run benchmarks whose score is another model's judgement.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what is finished, the passes to do, and all commands; run nothing.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Repeat what is finished; the old answers are set aside.")
    ] = False,
    no_shared_pass: cli_options.SeparateRows = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the table. Default: one beside the runs.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Folder of the table as a page with its samples. Default: one beside the runs."),
    ] = None,
) -> None:
    """Fill a whole table of a paper through lmms-eval.

    Every row on every benchmark of a suite. Rows of the same weights share a pass: one process answers them together,
    each as it would alone. Each row also is an lmms-eval command, which --dry-run prints and which can be run by hand.
    Answers are kept as they come: a stopped command, repeated, goes on where it was. A benchmark that fails stops no
    other one, and the end says what failed and how to repeat it. Runs, logs, the table and its page are under runs/.
    docs/many-nodes.md shows how rows and documents are spread over GPUs and machines.

    \b
    Examples:
      vico-eval run tiny --rows divprune,visionzip,fastv --budgets 0.75,0.5,0.25,0.1
      vico-eval run vico-table1 --checkpoint 38B --rows vanilla,vico --processes 4 --gpus-per-process 2 --shard 1/8
    """
    from vico_eval.budgets import parse_budgets
    from vico_eval.commands.launcher import Launching, split_prefix
    from vico_eval.commands.options import RunOptions, parse_servers
    from vico_eval.commands.run import run_suite
    from vico_eval.runs.shards import parse_shard

    launching = Launching(
        processes=processes,
        gpus_per_process=gpus_per_process,
        machines=machines,
        accelerate_config=accelerate_config,
        prefix=split_prefix(launch),
    )

    options = RunOptions(
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
    run_suite(suite, options, dry_run=dry_run)
