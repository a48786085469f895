"""The user's options for a suite's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from vico_eval.cards import Weights, by_weights
from vico_eval.commands.work.launcher import Launching
from vico_eval.commands.work.plan import ALL_WEIGHTS, ModelArgs
from vico_eval.engine.settings import ENGINES, TRANSFORMERS, VLLM
from vico_eval.errors import ConfigError
from vico_eval.runs.shards import Shard
from vico_eval.server_address import hide_in_addresses


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The user's options for a suite's runs."""

    rows: Sequence[str] = ()
    """Names of systems; empty for the suite's own, `all` for every card of its family."""

    benchmarks: Sequence[str] = ()
    """Names in the catalogue; empty for all of the suite."""

    budgets: Sequence[float] = ()
    """Shares of visual tokens to keep, for rows that would otherwise use another row's share; empty for the suite's."""

    checkpoint: str | None = None
    """A size of checkpoints.yaml, a checkpoint for all rows, or `base=...,vico=...`; None for the suite's own."""

    limit: int | None = None
    """Number of first documents of each task; None for all."""

    fixtures: bool = False
    """Replace the benchmarks' data by small local data sets."""

    judge: bool = False
    """Run benchmarks that need a judge model."""

    num_seeds: int = 1
    """Number of seeds of stochastic rows."""

    launching: Launching = field(default_factory=Launching)
    """How the processes of a row are started."""

    shard: Shard | None = None
    """The part of the documents to answer; None for all."""

    jobs: int | None = None
    """Number of rows, or passes of several rows, at once; None for one on a GPU, or one per core on a CPU, at most
    four."""

    batch_size: int | None = None
    """Documents per batch; None for 8, or 32 with a built-in checkpoint."""

    device: str | None = None
    """The models' device; None for a GPU if available."""

    engine: str = TRANSFORMERS
    """The decoder's engine."""

    servers: Mapping[str, str] = field(default_factory=dict)
    """Addresses of vLLM servers by kind of weights (`base`, `vico`, ...), or `ALL_WEIGHTS` for those of all rows."""

    model_args: ModelArgs = field(default_factory=dict)
    """Arguments of every row's model, which override its own."""

    out: Path | None = None
    """Folder of the table; None for one beside the runs."""

    html: Path | None = None
    """Folder of the page; None for one beside the runs."""

    page: bool = True
    """Write the page."""

    fresh: bool = False
    """Run finished cells again."""

    shared_pass: bool = True
    """Answer rows with the same weights together."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"--engine is {self.engine!r}; expected {' or '.join(ENGINES)}.")
        if self.servers and self.engine != VLLM:
            raise ConfigError("--server names vLLM servers; give --engine vllm too.")
        if self.launching.meeting is not None and (self.shard is not None or self.fixtures):
            given = "--fixtures" if self.fixtures else f"--shard {self.shard}"
            raise ConfigError(
                f"{given} can't be combined with an --accelerate-config of several machines, which divide the "
                "documents among themselves. Leave out one of the two."
            )
        if self.shard is None:
            return
        if self.fresh:
            raise ConfigError("--fresh can't be combined with --shard: it would move away the answers of other shards.")
        if self.fixtures:
            raise ConfigError(
                "--fixtures can't be combined with --shard: each command would rewrite the data that the others "
                "read. Rehearse shards on the built-in benchmark (vico-eval run tiny --shard 1/2)."
            )


def parse_servers(text: str) -> dict[str, str]:
    """Parse `--server` into servers by kind of weights: one for all rows, or `base=http://a:8000,vico=...`.

    Raises:
        ConfigError: a kind of weights is unknown, repeated or missing.
    """
    if not text:
        return {}
    kinds = get_args(Weights)
    if not text.startswith(tuple(f"{kind}=" for kind in kinds)):
        return {ALL_WEIGHTS: text}
    named = by_weights(text)
    if named is None:
        raise ConfigError(
            f"--server is {hide_in_addresses(text)!r}; expected an address, or one for each kind of weights "
            f"({', '.join(kinds)}), as in base=http://a:8000,vico=http://b:8000."
        )
    return named
