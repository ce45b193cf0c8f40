"""Templates: the wording of a prompt, with places for what changes from prompt to prompt.

A template is a Jinja2 text, which becomes the prompt's last user message, or a list of messages whose contents are such
texts. It sees the prompt's ``vars``, and ``input`` (the text of the last user message, if there is one), ``system`` (the text
of the system message, or "") and ``metadata``; a variable of the prompt's own goes before these three. The target is out of
its reach. An undefined name is an error.

Templates may come from somebody else, so they run in a sandbox with limits on time and size, see ``workbench.prompts.sandbox``.

>>> from workbench.prompts import PromptSet
>>> prompt = PromptSet.from_records([{"id": "a", "vars": {"x": 3}}])["a"]
>>> render("What is {{ x }} + 1?", prompt).messages
({'role': 'user', 'content': 'What is 3 + 1?'},)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import jinja2

from workbench.errors import PromptSetError
from workbench.prompts import sandbox
from workbench.prompts.sandbox import MAX_CHARS

if TYPE_CHECKING:
    from workbench.prompts import Prompt
    from workbench.records import Message

ROLES: Final = ("system", "user", "assistant")
_EXPRESSION_ERRORS: Final = (
    *(jinja2.TemplateError, ArithmeticError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)


def check(template: object) -> str | None:
    """What is wrong with a template, in one sentence, or None.

    Undefined names are found when it is rendered, since they depend on the prompt.
    """
    if isinstance(template, str):
        return _source_problem(template)
    if not isinstance(template, Sequence) or isinstance(template, bytes) or not template:
        return f"must be a text or a list of messages, got {template!r}"
    for i, message in enumerate(template, 1):
        problem = _message_problem(message)
        if problem is not None:
            return f"message {i}{problem}"
    if all(message["role"] == "system" for message in template):
        return "needs a message that is not a system message"
    return None


def render(
    template: str | Sequence[Mapping[str, str]], prompt: Prompt, *, name: str | None = None
) -> Prompt:
    """The prompt in a template's words.

    A text replaces the last user message, or is added after the messages if there is none. A list replaces all messages;
    the prompt's system message stays first if the list has none.

    Args:
        template: As ``check`` accepts it.
        prompt: Gives the variables; its id, target and everything else stay.
        name: What messages call the template.

    Raises:
        PromptSetError: The template cannot be used, or not with this prompt; names both.
    """
    called = "template" if name is None else f"template {name!r}"
    problem = check(template)
    if problem is not None:
        raise PromptSetError(called, problem)
    values = _values(prompt)

    def filled(source: str) -> str:
        text = fill(source, values, called, f"prompt {prompt.id!r}: ")
        if not text.strip():
            raise PromptSetError(called, f"prompt {prompt.id!r}: the message is empty")
        return text

    if not isinstance(template, str):
        made: list[Message] = [
            {"role": message["role"], "content": filled(message["content"])} for message in template
        ]
        if not any(message["role"] == "system" for message in made):
            made = [m for m in prompt.messages if m.get("role") == "system"] + made
        return replace(prompt, messages=tuple(made))
    messages = list(prompt.messages)
    last = _last(messages, "user")
    new = {"role": "user", "content": filled(template)}
    if last is None:
        messages.append(new)
    else:
        messages[last] = {**messages[last], **new}
    return replace(prompt, messages=tuple(messages))


def fill(source: str, values: Mapping[str, Any], called: str = "template", about: str = "") -> str:
    """A template's text with these variables.

    Args:
        source: A Jinja2 text.
        values: The variables.
        called: What messages call the template.
        about: What messages say before the problem.

    Raises:
        PromptSetError: It cannot be used, or not with these variables.
    """
    problem = _source_problem(source)
    if problem is not None:
        raise PromptSetError(called, about + problem)
    try:
        return sandbox.filled(source, values)
    except _EXPRESSION_ERRORS as error:
        raise PromptSetError(called, about + _said(error, source, values)) from error


def _values(prompt: Prompt) -> dict[str, Any]:
    messages = prompt.messages
    user, system = _last(messages, "user"), _last(messages, "system")
    values: dict[str, Any] = {"metadata": prompt.metadata}
    values["system"] = "" if system is None else messages[system]["content"]
    if user is not None:
        values["input"] = messages[user]["content"]
    return values | prompt.vars


def _last(messages: Sequence[Message], role: str) -> int | None:
    return next(
        (i for i in reversed(range(len(messages))) if messages[i].get("role") == role), None
    )


def _said(error: BaseException, source: str, values: Mapping[str, Any]) -> str:
    """A template's failure in words, with its line if it has several."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == sandbox.FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"line {line}: " if line is not None and "\n" in source.strip() else ""
    if isinstance(error, jinja2.UndefinedError):
        also = "; a template never sees the target" if "'target' is undefined" in str(error) else ""
        said = str(error).replace(sandbox.SELF, "self")
        return f"{where}{said}; known: {', '.join(sorted(values))}{also}"
    if isinstance(error, RecursionError):
        return f"{where}calls itself too deeply"
    message = error.message if isinstance(error, jinja2.TemplateError) else str(error)
    return f"{where}{message}".rstrip(".")


def _message_problem(message: object) -> str | None:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        return f" must have role and content and nothing else, got {message!r}"
    if message["role"] not in ROLES:
        return f": role must be one of {', '.join(ROLES)}, got {message['role']!r}"
    if not isinstance(message["content"], str):
        return f": content must be text, got {message['content']!r}"
    problem = _source_problem(message["content"])
    return None if problem is None else f": {problem}"


def _source_problem(source: str) -> str | None:
    if not source.strip():
        return "is empty"
    if len(source) > MAX_CHARS:
        return f"is longer than {MAX_CHARS:,} characters"
    try:
        sandbox.compiled(source)
    except jinja2.TemplateError as error:
        return _said(error, source, {})
    except (RecursionError, SyntaxError, MemoryError):
        return "is nested too deeply"
    except ValueError:  # Python reads and writes no more than 4,300 digits
        return "holds a number that is too long"
    return None
