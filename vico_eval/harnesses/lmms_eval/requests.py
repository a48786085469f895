"""Conversion of lmms-eval's instances to requests, separating the task's settings from lmms-eval's defaults."""

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
    """Return the generation settings of an instance.

    Args:
        instance: an instance of lmms-eval.
        thinking: generation settings of thinking mode, unless the task sets its own; None without thinking mode.

    Raises:
        ConfigError: a generation argument is unknown or out of range.
    """
    gen_kwargs = dict(instance.args[2])
    if _is_left_out(instance, thinks=thinking is not None):
        gen_kwargs.pop("until")
    return GenerationSettings.from_gen_kwargs(gen_kwargs, **(thinking or {}))


def left_out_until(instances: Iterable[Instance], *, thinks: bool) -> dict[str, tuple[str, ...]]:
    """Return the stop strings that are ignored, by task."""
    left_out = {
        instance.args[4]: stop_strings(instance.args[2]["until"])
        for instance in first_of_each_task(instances)
        if _is_left_out(instance, thinks=thinks)
    }
    return {task: until for task, until in left_out.items() if until}


def _is_left_out(instance: Instance, *, thinks: bool) -> bool:
    """Return whether an instance's stop strings are lmms-eval's default, or could end a thought.

    lmms-eval uses its few-shot delimiter, a blank line, as the stop string of each task whose YAML has none. A task
    that sets the same string can only be told apart by identity: lmms-eval's default is the delimiter object itself.
    (Python has one object per single-character string; these count as lmms-eval's.)
    """
    if "until" not in instance.args[2]:
        return False
    until, task = instance.args[2]["until"], task_of(instance)
    delimiter = TaskConfig.fewshot_delimiter if task is None else task.config.fewshot_delimiter
    return thinks or (isinstance(until, list) and len(until) == 1 and until[0] is delimiter)


def system_instruction(instances: Iterable[Instance]) -> str | None:
    """Return lmms-eval's `--system_instruction`; None without one.

    lmms-eval only adds it to the text for models without messages, before the task's description and the question. It
    is the same for all tasks, so it is taken from the first task with deterministic text: one that doesn't draw
    examples or shuffle options.
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
    """Raise ConfigError for a task whose few-shot examples lmms-eval doesn't put into messages."""
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
    """Return the messages about a document, after the system instruction.

    Args:
        document_messages: the task's messages.
        instruction: the system instruction; None for none.
        at_marks: move images to their marks in the text.

    Raises:
        ConfigError: a message contains other parts than text, images and video.
    """
    messages = [
        Message(message.role, placed_at_marks(parts) if at_marks else tuple(parts))
        for message in ChatMessages(messages=document_messages).messages
        for parts in [[_part(content) for content in message.content]]
    ]
    if instruction is None:
        return tuple(messages)
    own = messages.pop(0).content if messages and messages[0].role == "system" else ()
    # The way lmms-eval joins it with a task's description.
    between = (Text(TaskConfig.fewshot_delimiter),) if own else ()
    return (Message("system", (Text(instruction), *between, *own)), *messages)


def placed_at_marks(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts of a message with images moved to the marks `<image>`, if there are as many marks as images.

    lmms-eval's own InternVL3 does the same. It only moves images that precede all text, which is where lmms-eval puts
    them for tasks without their own messages. Otherwise marks are text and images stay, because the task has placed
    them.
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
    raise ConfigError(f"a document contains {content.type}; this model accepts text, images and video.")


def task_of(instance: Instance) -> ConfigurableTask | None:
    """Return the task that makes an instance's messages; None if something else does, such as an agent."""
    owner = getattr(instance.args[1], "__self__", None)
    return owner if isinstance(owner, ConfigurableTask) else None


def first_of_each_task(instances: Iterable[Instance]) -> list[Instance]:
    """Return the first instance of every task."""
    first: dict[str, Instance] = {}
    for instance in instances:
        first.setdefault(instance.args[4], instance)
    return list(first.values())
