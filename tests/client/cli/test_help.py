"""Every help text as it is shown: examples stand in lines of their own, and nothing is raw."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from pegel.cli.main import pegel


def _commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, (*path, name))


COMMANDS = dict(_commands(pegel))


def _verbatim(text: str) -> list[str]:
    r"""The lines of paragraphs that are not to be filled: those that begin with ``\b``."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return [
        line.strip()
        for paragraph in paragraphs
        if paragraph.startswith("\b\n")
        for line in paragraph.splitlines()[1:]
    ]


def test_the_commands_of_brokers_are_there_as_well() -> None:
    assert {("up",), ("server",), ("produce",), ("cluster", "health")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(pegel, [*path, "--help"], prog_name="pegel", terminal_width=100)
    assert shown.exit_code == 0
    assert "\\" not in shown.output.replace(r"\t", "")
    lines = [line.strip() for line in shown.output.splitlines()]
    help_text = COMMANDS[path].help or ""
    assert help_text, "a command says what it does"
    for example in _verbatim(help_text):
        assert example in lines
    assert all("pegel" not in line or len(line) <= 100 for line in lines)
