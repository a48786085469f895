"""Probing a server before the load: whether it answers, and how many tokens it adds to a prompt."""

from __future__ import annotations

from vico_eval.bench.serve.answer import NO_USAGE, REFUSED, TIMEOUT, Outcome
from vico_eval.bench.serve.client import Client
from vico_eval.bench.serve.workload import Setting, Workload
from vico_eval.errors import ConfigError

TRIES = 4
"""The number of attempts. A server with a 10% error rate is wrongly rejected in one of 10,000 cases."""


async def find_overhead(client: Client, workload: Workload, seed: str) -> int:
    """Return the number of tokens that this server counts in a prompt beyond the checkpoint's tokenizer; 0 for images.

    The longest and the shortest prompt must agree. With a wrong tokenizer the difference varies with the length.

    Raises:
        ConfigError: the server rejects the model or the prompt, does not answer, reports no usage, or its counts
            differ from the tokenizer's by more than a constant.
    """
    lengths = sorted(workload.settings, key=lambda setting: setting.prompt_tokens or 0)
    shortest = lengths[0].prompt_tokens or 1
    found = []
    for setting in dict.fromkeys((lengths[-1], lengths[0])):
        outcome = await _answered(client, workload, setting, seed)
        if outcome.prompt_tokens is None or outcome.output_tokens is None:
            raise ConfigError(
                f"{_who(client)} reports no usage (prompt_tokens, completion_tokens) in its stream, so prompt lengths "
                "can't be verified. Use an engine that supports stream_options.include_usage."
            )
        found.append(outcome.prompt_tokens - (setting.prompt_tokens or outcome.prompt_tokens))
    if len(set(found)) > 1:
        raise ConfigError(
            f"{_who(client)} differs from --tokenizer by {found[0]:+d} tokens in the longest prompt and {found[-1]:+d} "
            "in the shortest one; expected the same difference. Pass the tokenizer of the served checkpoint."
        )
    if not -shortest < found[0] < shortest:
        raise ConfigError(
            f"{_who(client)} differs from --tokenizer by {found[0]:+d} tokens in every prompt, which is more than the "
            "shortest prompt has. Pass the tokenizer of the served checkpoint."
        )
    return found[0]


async def _answered(client: Client, workload: Workload, setting: Setting, seed: str) -> Outcome:
    """Return the first outcome that has token counts or lacks only a usage report; the load counts other failures."""
    for number in range(TRIES):
        seed_of_try = f"{seed}/{client.server.name}/probe/{setting.title}/{number}"
        outcome = await client.ask(workload.request(setting, 0, seed_of_try))
        if outcome.failure in ("", NO_USAGE) or outcome.output_tokens is not None:
            return outcome
        if outcome.failure in (REFUSED, TIMEOUT) or outcome.failure.startswith("HTTP 4"):
            break
    lists = "" if client.server.is_listed else " It does not list this model."
    tokens = "" if setting.prompt_tokens is None else f" of {setting.prompt_tokens} tokens"
    raise ConfigError(
        f"{_who(client)} does not answer a request{tokens} for the model {client.server.model!r}: {outcome.failure}, "
        f"{outcome.words or 'without a message'}.{lists} Nothing was measured."
    )


def _who(client: Client) -> str:
    return f"the server at {client.server.url}"
