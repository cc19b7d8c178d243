"""What a person has given to a command, and what only goes with something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from click.core import ParameterSource


def only(holds: bool, what: str, *parameters: str) -> None:
    """Refuse options that mean something elsewhere only. Raises UsageError."""
    if holds:
        return
    context = click.get_current_context()
    for one in context.command.params:
        if one.name in parameters and _is_given(context, one.name):
            raise click.UsageError(f"{one.opts[-1]} is for {what} only")


def words() -> list[str]:
    """Return the current command's name, with that of its group before it."""
    found: list[str] = []
    context: click.Context | None = click.get_current_context()
    while context is not None and context.parent is not None:
        found.insert(0, str(context.info_name))
        context = context.parent
    return found


def again(without: Iterable[str]) -> Iterator[str]:
    """Yield the options of the current command as they were given, without these parameters."""
    context = click.get_current_context()
    for one in context.command.params:
        if not isinstance(one, click.Option) or one.name is None or one.name in without:
            continue
        if _is_given(context, one.name):
            yield one.opts[-1]
            if not one.is_flag:
                yield str(context.params[one.name])


def _is_given(context: click.Context, parameter: str) -> bool:
    return context.get_parameter_source(parameter) is not ParameterSource.DEFAULT
