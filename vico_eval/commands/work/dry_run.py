"""The plan of a table's command: its passes and runs, what is finished, and every command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vico_eval.commands.output import message_console, print_json
from vico_eval.commands.work.failures import by_hand
from vico_eval.commands.work.passes import Pass, conditions_of, donors_of
from vico_eval.commands.work.plan import Cell, PlannedRun

_WORDS = {"pretrained": "checkpoint"}
"""Names that differ from the argument's."""

_EXPLAINED = (
    "A pass is one process for several runs; its file is written when it starts. Each run's own command follows."
)


def in_passes(runs: Sequence[PlannedRun], passes: Sequence[Pass]) -> str:
    """Return the number of runs and, if runs share passes, the number of passes for the unfinished ones."""
    if all(len(one.runs) == 1 for one in passes):
        return f"{len(runs)} runs"
    left = sum(len(one.runs) for one in passes)
    to_do = "" if left == len(runs) else f", {left} of them to do"
    return f"{len(runs)} runs{to_do} in {len(passes)} {'pass' if len(passes) == 1 else 'passes'}"


def show_plan(
    runs: Sequence[PlannedRun],
    plans: Mapping[str, tuple[str | None, Sequence[Cell]]],
    passes: Sequence[Pass],
) -> None:
    """Print each pass with its command and runs, and each run with its benchmarks and own command.

    Args:
        runs: the runs of a table.
        plans: by run, why earlier results are stale, if they are, and the cells to answer (`run_folders.unfinished`).
        passes: the passes that answer these cells.
    """
    console = message_console()
    num_left = sum(len(one.runs) * len(one.cells) for one in passes)
    num_cells = sum(len(run.cells) for run in runs)
    lines = [f"{in_passes(runs, passes)}; {num_left} of {num_cells} cells to do."]
    is_shared = any(len(one.runs) > 1 for one in passes)
    lines += [f"{_EXPLAINED}\n"] if is_shared else [""]
    for number, one in enumerate(passes):
        told = [_told(run, plans[run.name][0], one.cells) for run in one.runs]
        head, *below = _told_pass(one) if len(told) > 1 else told.pop()
        reason = _why_apart(one, passes[:number]) if is_shared else None
        lines += [head, *([] if reason is None else [f"  {reason}"]), *below]
        lines += [f"  {line}" for run in told for line in run]
    in_a_pass = {run.name for one in passes for run in one.runs}
    for run in runs:
        if run.name not in in_a_pass:
            lines += _told(run, plans[run.name][0], ())
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def print_plan(
    runs: Sequence[PlannedRun],
    plans: Mapping[str, tuple[str | None, Sequence[Cell]]],
    passes: Sequence[Pass],
) -> None:
    """Print the plan as JSON on stdout; see `show_plan`.

    Commands are lists of arguments, with their environment variables beside them.
    """
    left = {name: [cell.benchmark for cell in cells] for name, (_, cells) in plans.items()}
    print_json(
        {
            "runs": [
                {
                    "name": run.name,
                    "title": run.title,
                    "folder": str(run.folder),
                    "after": run.after,
                    "finished": [cell.benchmark for cell in run.cells if cell.benchmark not in left[run.name]],
                    "to_do": left[run.name],
                    "stale": plans[run.name][0],
                    "environment": dict(run.environment),
                    "command": list(run.command(plans[run.name][1])) if left[run.name] else None,
                }
                for run in runs
            ],
            "passes": [
                {
                    "name": one.name,
                    "runs": [run.name for run in one.runs],
                    "benchmarks": [cell.benchmark for cell in one.cells],
                    "after": list(one.after),
                    "environment": dict(one.runs[0].environment),
                    "command": list(one.command),
                }
                for one in passes
            ],
        }
    )


def _told_pass(one: Pass) -> list[str]:
    after = f", after {', '.join(one.after)}" if one.after else ""
    return [
        f"pass {one.name}: {', '.join(run.name for run in one.runs)}{after}",
        f"  {by_hand(one.runs[0], one.command)}",
    ]


def _told(run: PlannedRun, stale: str | None, left: Sequence[Cell]) -> list[str]:
    to_do = [cell.benchmark for cell in left]
    done = [cell.benchmark for cell in run.cells if cell.benchmark not in to_do]
    lines = [f"{run.name} ({run.title}){f', after {run.after}' if run.after else ''}"]
    if stale is not None:
        lines.append(f"  existing answers will be moved aside, since {stale}")
    if done:
        lines.append(f"  finished: {', '.join(done)}")
    if to_do:
        lines += [f"  to do: {', '.join(to_do)}", f"  {by_hand(run, run.command(left))}"]
    return lines


def _why_apart(one: Pass, earlier: Sequence[Pass]) -> str | None:
    """Return why a pass is separate from the earlier pass that it has most in common with."""
    if not earlier:
        return None
    nearest = min(earlier, key=lambda other: len(_differences(one, other)))
    different = _differences(one, nearest)
    if different:
        return f"apart from {nearest.name}: {'; '.join(different)}"
    if needed := [run.name for run in nearest.runs if run.name in one.after]:
        return f"apart from {nearest.name}: waits for {', '.join(needed)}, which is in it"
    if len(donors_of([*one.runs, *nearest.runs])) > 1:
        return f"apart from {nearest.name}: another flash_from"
    if bool(one.after) != bool(nearest.after):
        waits, other = (one, "that one") if one.after else (nearest, "this one")
        return f"apart from {nearest.name}: {other} need not wait for {', '.join(waits.after)}"
    return f"apart from {nearest.name}: together they would wait for themselves"


def _differences(one: Pass, other: Pass) -> list[str]:
    """Return the differences between two passes' models, and whether their benchmarks differ."""
    ours, theirs = conditions_of(one.runs[0]), conditions_of(other.runs[0])
    names = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
    words = [
        f"{_WORDS.get(name, name)} is {ours.get(name, 'not given')}, there {theirs.get(name, 'not given')}"
        for name in names
    ]
    to_do = [[cell.benchmark for cell in each.cells] for each in (one, other)]
    return words + (["other benchmarks to do"] if to_do[0] != to_do[1] else [])
