"""Running the load: servers and settings take turns in each round, with a fixed number of requests in flight."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vico_eval.bench.serve.answer import Outcome
from vico_eval.bench.serve.client import Client
from vico_eval.bench.serve.workload import Request, Setting, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The size of the load."""

    num_requests: int
    """Number of requests per server and setting, over all rounds."""

    concurrency: int
    num_rounds: int
    num_warmup: int
    """Number of requests per server and setting before the first round, which are not counted."""

    seconds: float | None
    """Time limit for the whole load; None means no limit."""

    seed: int

    @property
    def num_connections(self) -> int:
        """The maximum number of requests in flight."""
        return min(self.concurrency, max(self.requests_of_round(0), self.num_warmup, 1))

    def requests_of_round(self, number: int) -> int:
        """Return the number of requests in a round; if they can't be equal, the first rounds have one more."""
        return self.num_requests // self.num_rounds + (number < self.num_requests % self.num_rounds)


@dataclass(frozen=True, slots=True)
class LoadCell:
    """One cell of the table: a server and a setting."""

    server: str
    setting: Setting


@dataclass(slots=True)
class Turn:
    """A cell's requests in one round."""

    cell: LoadCell
    round: int
    outcomes: list[Outcome] = field(default_factory=list)
    is_complete: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of this process during the turn."""


class Stop:
    """Whether the load must end, and why."""

    def __init__(self) -> None:
        self.reason = ""
        self.signal: int | None = None
        self._event = asyncio.Event()

    def now(self, reason: str, number: int | None = None) -> None:
        """End the load; the first reason is kept."""
        if not self.reason:
            self.reason, self.signal = reason, number
        self._event.set()

    async def wait(self) -> None:
        """Wait until the load must end."""
        await self._event.wait()


Tell = Callable[[Turn, Outcome], None]
"""Receives every counted outcome as it arrives."""


async def run_load(
    clients: Sequence[Client], workload: Workload, overheads: Sequence[int], plan: Plan, tell: Tell
) -> tuple[list[Turn], Stop]:
    """Run the whole load. It stops early on SIGINT or SIGTERM, at the time limit, or when a server keeps failing.

    Args:
        clients: one client per server.
        workload: makes the requests.
        overheads: one value per server, from `find_overhead`.
        plan: the size of the load.
        tell: receives every counted outcome.

    Returns:
        The turns in the order in which they ran, and the reason if the load ended early.
    """
    stop = Stop()
    turns: list[Turn] = []
    with _signals(stop):
        if plan.seconds is not None:
            asyncio.get_running_loop().call_later(plan.seconds, stop.now, f"the limit of {plan.seconds:g} s")
        in_turn = [(pair, setting) for setting in workload.settings for pair in zip(clients, overheads, strict=True)]
        for number in range(-1, plan.num_rounds):  # -1 is the warm-up
            for (client, overhead), setting in in_turn:
                turn = Turn(LoadCell(client.server.name, setting), number)
                num_requests = plan.num_warmup if number < 0 else plan.requests_of_round(number)
                start = f"{plan.seed}/{client.server.name}/{setting.title}/{number}"
                requests = [workload.request(setting, overhead, f"{start}/{place}") for place in range(num_requests)]
                # Making the requests blocks the event loop, so let it handle pending signals now.
                await asyncio.sleep(0)
                if not stop.reason:
                    await _run_turn(turn, client, requests, plan, stop, None if number < 0 else tell)
                if number >= 0:
                    turns.append(turn)
                if stop.reason:
                    return turns, stop
    return turns, stop


async def _run_turn(
    turn: Turn, client: Client, requests: Sequence[Request], plan: Plan, stop: Stop, tell: Tell | None
) -> None:
    """Keep `concurrency` requests in flight until all are sent; requests in flight at a stop are dropped."""
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            outcome = await client.ask(request)
            turn.outcomes.append(outcome)
            if tell is not None:
                tell(turn, outcome)
            # Otherwise a hanging server would cost one timeout for each of thousands of requests.
            if client.failures_in_a_row >= 2 * plan.concurrency:
                failed = f"failed {client.failures_in_a_row} requests in a row"
                stop.now(f"{client.server.name}, which {failed}: {outcome.failure}")
                return

    workers = asyncio.gather(*(work() for _ in range(min(plan.concurrency, len(requests)))))
    stopping = asyncio.ensure_future(stop.wait())
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        await asyncio.wait((workers, stopping), return_when=asyncio.FIRST_COMPLETED)
        if workers.done():
            workers.result()  # raises an error of our own code
        turn.is_complete = len(turn.outcomes) == len(requests)
    finally:
        for task in (workers, stopping):
            task.cancel()
        await asyncio.gather(workers, stopping, return_exceptions=True)
        turn.wall_s, turn.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the load and keep its results; a second one ends the command."""
    loop = asyncio.get_running_loop()
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in earlier.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def received(number: signal.Signals) -> None:
        restore()
        stop.now("Ctrl-C" if number == signal.SIGINT else number.name, number)

    for number in earlier:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        restore()
