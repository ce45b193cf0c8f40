"""The prompts of a study as each of its templates words them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.errors import PromptSetError
from workbench.prompts import templates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.prompts import Prompt, PromptSet


def word(prompts: PromptSet, named: Mapping[str, Any]) -> dict[str | None, PromptSet]:
    """The prompts under every template.

    Args:
        prompts: With the study's system message.
        named: Template name to template; a null template is the prompts as they are.

    Returns:
        Template name to prompts; empty if there are no templates.

    Raises:
        PromptSetError: Lists every prompt that a template cannot be filled in for, and the prompts that are only
            variables where no template words them.
    """
    bare = prompts.unasked  # a system message alone asks nothing
    if bare and (not named or None in named.values()):
        without = [name for name, template in named.items() if template is None]
        where = f"template {without[0]!r} is empty" if without else "the study has no templates"
        raise PromptSetError(
            prompts.source,
            f"{len(bare)} of {len(prompts)} prompts are only vars and {where} (first: {bare[0]!r}); "
            "give the study templates, or the rows a prompt",
        )
    problems: list[str] = []
    out: dict[str | None, PromptSet] = {
        name: prompts if template is None else _worded(prompts, name, template, problems)
        for name, template in named.items()
    }
    if problems:
        raise PromptSetError(prompts.source, problems)
    return out


def _worded(prompts: PromptSet, name: str, template: Any, problems: list[str]) -> PromptSet:
    worded: list[Prompt] = []
    for prompt in prompts:
        try:
            worded.append(templates.render(template, prompt))
        except PromptSetError as error:
            problems += [f"template {name}: {problem}" for problem in error.problems]
            if len(problems) >= 20:  # one mistake in a template is one in every prompt
                raise PromptSetError(prompts.source, [*problems, "..."]) from error
    return prompts if problems else replace(prompts, prompts=tuple(worded))
