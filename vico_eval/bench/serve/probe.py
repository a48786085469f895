"""Before the load: does the server answer at all, and how many tokens does it count besides ours?"""

from __future__ import annotations

from vico_eval.bench.serve.answer import NO_USAGE, REFUSED, TIMEOUT, Outcome
from vico_eval.bench.serve.client import Client
from vico_eval.bench.serve.workload import Setting, Workload
from vico_eval.errors import ConfigError

TRIES = 4
"""Of a server that answers with an error now and then, one in 10,000 is refused at a rate of 10%."""


async def find_overhead(client: Client, workload: Workload, seed: str) -> int:
    """Tokens that this server counts in a prompt besides those of the checkpoint's tokenizer; 0 for images.

    Asked with the longest and the shortest prompt, which must agree: a wrong tokenizer is off by another number at
    each length.

    Raises:
        ConfigError: the server refuses the model or the prompt, does not answer, reports no usage, or counts otherwise.
    """
    lengths = sorted(workload.settings, key=lambda setting: setting.prompt_tokens or 0)
    shortest = lengths[0].prompt_tokens or 1
    found = []
    for setting in dict.fromkeys((lengths[-1], lengths[0])):
        outcome = await _answered(client, workload, setting, seed)
        if outcome.prompt_tokens is None or outcome.output_tokens is None:
            raise ConfigError(
                f"{_who(client)} reports no usage (prompt_tokens, completion_tokens) with its stream, so the size of "
                "prompts can't be verified. Serve with an engine that knows stream_options.include_usage."
            )
        found.append(outcome.prompt_tokens - (setting.prompt_tokens or outcome.prompt_tokens))
    if len(set(found)) > 1:
        raise ConfigError(
            f"{_who(client)} counts {found[0]:+d} tokens in the longest prompt and {found[-1]:+d} in the shortest one "
            "against --tokenizer; expected the same. Give the tokenizer of the checkpoint that is served."
        )
    if not -shortest < found[0] < shortest:
        raise ConfigError(
            f"{_who(client)} counts {found[0]:+d} tokens in every prompt against --tokenizer, which is more than the "
            "shortest prompt has. Give the tokenizer of the checkpoint that is served."
        )
    return found[0]


async def _answered(client: Client, workload: Workload, setting: Setting, seed: str) -> Outcome:
    """The first answer that says how long the prompt was, or that lacks only this; other faults are the load's."""
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
        f"{outcome.words or 'without a word'}.{lists} Nothing was measured."
    )


def _who(client: Client) -> str:
    return f"the server at {client.server.url}"
