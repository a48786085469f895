"""The load: servers and settings in turns, round by round, a fixed number of requests in flight."""

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
    """How much is asked."""

    num_requests: int
    """Of every server and setting, over all rounds."""

    concurrency: int
    num_rounds: int
    num_warmup: int
    """Of every server and setting, before the first round; not counted."""

    seconds: float | None
    """Of the whole load; None has no limit."""

    seed: int

    @property
    def num_connections(self) -> int:
        """As many as there can be requests in flight."""
        return min(self.concurrency, max(self.requests_of_round(0), self.num_warmup, 1))

    def requests_of_round(self, number: int) -> int:
        """The first rounds have one more where they can't be equal."""
        return self.num_requests // self.num_rounds + (number < self.num_requests % self.num_rounds)


@dataclass(frozen=True, slots=True)
class LoadCell:
    """One number of the table: a server and a setting."""

    server: str
    setting: Setting


@dataclass(slots=True)
class Turn:
    """A cell's requests of one round."""

    cell: LoadCell
    round: int
    outcomes: list[Outcome] = field(default_factory=list)
    is_complete: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Of this process meanwhile."""


class Stop:
    """Whether and why the load has to end."""

    def __init__(self) -> None:
        self.reason = ""
        self.signal: int | None = None
        self._event = asyncio.Event()

    def now(self, reason: str, number: int | None = None) -> None:
        """End it; the first reason stays."""
        if not self.reason:
            self.reason, self.signal = reason, number
        self._event.set()

    async def wait(self) -> None:
        """Until it has to end."""
        await self._event.wait()


Tell = Callable[[Turn, Outcome], None]
"""Gets every counted outcome as it comes."""


async def run_load(
    clients: Sequence[Client], workload: Workload, overheads: Sequence[int], plan: Plan, tell: Tell
) -> tuple[list[Turn], Stop]:
    """Run the whole load; stops early on SIGINT, SIGTERM, at the limit of time, or when a server only fails.

    Args:
        clients: one a server.
        workload: makes the requests.
        overheads: one a server, from `find_overhead`.
        plan: how much.
        tell: gets every outcome that counts.

    Returns:
        Turns in the order in which they ran, and why the load ended early, if it did.
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
                # Making them takes a moment, in which the loop could not see a signal.
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
    """Keep `concurrency` requests in flight until all are sent; what is in flight at a stop is dropped."""
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            outcome = await client.ask(request)
            turn.outcomes.append(outcome)
            if tell is not None:
                tell(turn, outcome)
            # A server that hangs would be waited for once more for each of thousands of requests.
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
            workers.result()  # an error of our own is not swallowed
        turn.is_complete = len(turn.outcomes) == len(requests)
    finally:
        for task in (workers, stopping):
            task.cancel()
        await asyncio.gather(workers, stopping, return_exceptions=True)
        turn.wall_s, turn.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the load with what it has; the second one ends the command."""
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
