"""From lmms-eval's instances to requests: what the task wants, told apart from what lmms-eval adds to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.task import ConfigurableTask, TaskConfig
from lmms_eval.protocol import ChatMessages

from vico_eval.engine.requests import (
    GenerationSettings,
    ImageInput,
    Message,
    Part,
    Text,
    VideoInput,
    stop_strings,
)
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.prompts import IMAGE_MARK


def generation_of(instance: Instance, *, thinking: Mapping[str, Any] | None) -> GenerationSettings:
    """How an instance is to be answered.

    Args:
        instance: of lmms-eval.
        thinking: how an answer with thoughts before it is generated where the task doesn't say; None where there are
            none.

    Raises:
        ConfigError: an unknown generation argument or a value outside its range.
    """
    gen_kwargs = dict(instance.args[2])
    if _is_left_out(instance, thinks=thinking is not None):
        gen_kwargs.pop("until")
    return GenerationSettings.from_gen_kwargs(gen_kwargs, **(thinking or {}))


def left_out_until(instances: Iterable[Instance], *, thinks: bool) -> dict[str, tuple[str, ...]]:
    """By task, the stop strings that answers don't end at, where there are any."""
    left_out = {
        instance.args[4]: stop_strings(instance.args[2]["until"])
        for instance in first_of_each_task(instances)
        if _is_left_out(instance, thinks=thinks)
    }
    return {task: until for task, until in left_out.items() if until}


def _is_left_out(instance: Instance, *, thinks: bool) -> bool:
    """Whether an instance's stop strings are those that lmms-eval fills in, or would end a thought.

    lmms-eval makes its few-shot delimiter, a blank line, the stop string of each task whose YAML names none. One that
    names the delimiter has an equal string, and the YAML is gone by now; but that string is another object, where
    lmms-eval puts in its delimiter itself. (Python has one object for all equal strings of one character; those count
    as lmms-eval's.)
    """
    if "until" not in instance.args[2]:
        return False
    until, task = instance.args[2]["until"], task_of(instance)
    delimiter = TaskConfig.fewshot_delimiter if task is None else task.config.fewshot_delimiter
    return thinks or (isinstance(until, list) and len(until) == 1 and until[0] is delimiter)


def system_instruction(instances: Iterable[Instance]) -> str | None:
    """What lmms-eval's `--system_instruction` says; None where it says nothing.

    lmms-eval only puts it into the text that models without messages get, in front of the task's description and the
    question. It is the same for all tasks, so it is read off the first of them whose words are the same each time: not
    off one that draws examples, or shuffles its options.
    """
    for instance in first_of_each_task(instances):
        context, _, _, doc_id, _, _ = instance.args
        task = task_of(instance)
        if task is None or task.config.num_fewshot:
            continue
        own = task.fewshot_context(doc=task.eval_docs_no_media[doc_id], num_fewshot=0)
        if not isinstance(own, str) or not context.endswith(own):
            continue
        instruction = context.removesuffix(own)
        if task.config.description:
            instruction = instruction.removesuffix(task.config.fewshot_delimiter)
        return instruction or None
    return None


def refuse_examples(instances: Iterable[Instance]) -> None:
    """Raises ConfigError for a task whose few-shot examples lmms-eval puts into no message."""
    for instance in first_of_each_task(instances):
        task = task_of(instance)
        if task is None or (task.config.doc_to_visual is None and task.config.doc_to_messages is None):
            continue
        if number := task.config.num_fewshot:
            raise ConfigError(
                f"task {task.config.task} is to be asked with {number} examples, which lmms-eval gives to models that "
                "take messages only where a task has no pictures. Leave out --num_fewshot."
            )


def messages_of(document_messages: Any, instruction: str | None, *, at_marks: bool) -> tuple[Message, ...]:
    """The messages about a document, behind the system instruction.

    Args:
        document_messages: of the task.
        instruction: the system instruction; None for none.
        at_marks: whether images are put where the words have marks for them.

    Raises:
        ConfigError: a message holds something else than text, images and video.
    """
    messages = [
        Message(message.role, placed_at_marks(parts) if at_marks else tuple(parts))
        for message in ChatMessages(messages=document_messages).messages
        for parts in [[_part(content) for content in message.content]]
    ]
    if instruction is None:
        return tuple(messages)
    own = messages.pop(0).content if messages and messages[0].role == "system" else ()
    # As lmms-eval joins it with a task's description.
    between = (Text(TaskConfig.fewshot_delimiter),) if own else ()
    return (Message("system", (Text(instruction), *between, *own)), *messages)


def placed_at_marks(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts of a message with each image in place of its mark `<image>`, where there are as many of both.

    So lmms-eval's own InternVL3 shows them. It moves only images in front of all words, where lmms-eval puts those of a
    task that has no messages of its own. Otherwise marks are words and images stay: a task that has placed them
    among its words knows better.
    """
    images = [part for part in parts if isinstance(part, ImageInput)]
    words = [number for number, part in enumerate(parts) if isinstance(part, Text)]
    marks = sum(part.text.count(IMAGE_MARK) for part in parts if isinstance(part, Text))
    if not images or marks != len(images) or any(isinstance(part, ImageInput) for part in parts[words[0] :]):
        return tuple(parts)
    waiting = iter(images)
    placed: list[Part] = []
    for part in parts:
        if isinstance(part, Text):
            first, *others = part.text.split(IMAGE_MARK)
            placed.append(Text(first))
            for text in others:
                placed += [ImageInput(next(waiting).source, is_inline=True), Text(text)]
        elif not isinstance(part, ImageInput):
            placed.append(part)
    return tuple(part for part in placed if part != Text(""))


def _part(content: Any) -> Part:
    if content.type == "text":
        return Text(content.text)
    if content.type == "image":
        return ImageInput(content.url)
    if content.type == "video":
        return VideoInput(content.url, start_s=content.start_time, end_s=content.end_time)
    raise ConfigError(f"a document holds {content.type}; this model takes text, images and video.")


def task_of(instance: Instance) -> ConfigurableTask | None:
    """The task that makes an instance's messages; None where something else does, as in rounds of an agent."""
    owner = getattr(instance.args[1], "__self__", None)
    return owner if isinstance(owner, ConfigurableTask) else None


def first_of_each_task(instances: Iterable[Instance]) -> list[Instance]:
    """The first instance of every task."""
    first: dict[str, Instance] = {}
    for instance in instances:
        first.setdefault(instance.args[4], instance)
    return list(first.values())
