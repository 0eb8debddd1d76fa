"""The ``pegel`` command: finds its sub-commands through entry points, imports them when used."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points

import click

GROUP = "pegel.commands"
# Shown in this order; whatever else is installed follows by name.
_ORDER = (
    "up",
    "server",
    "topics",
    "produce",
    "consume",
    "groups",
    "cluster",
    "users",
    "bench",
    "explain",
)


class _Lazy(click.Group):
    """Loads a sub-command only when it is asked for: ``pegel up`` must not wait for all others."""

    def _found(self) -> dict[str, EntryPoint]:
        found = {point.name: point for point in entry_points(group=GROUP)}
        known = [name for name in _ORDER if name in found]
        return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = self._found().get(cmd_name)
        if point is None:
            return None
        command = point.load()
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pegel", prog_name="pegel")
def pegel() -> None:
    """A Kafka-compatible partitioned, replicated log.

    \b
    pegel up                          three brokers on localhost:9092, until Ctrl-C
    pegel topics create orders        create a topic
    seq 10 | pegel produce orders     write lines
    pegel consume orders --from-beginning --exit-at-end
    """


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 wrong usage."""
    try:
        pegel.main(standalone_mode=True)
    except BrokenPipeError:
        # Whoever read our output has enough: that is no failure (``pegel consume … | head``).
        sys.stderr.close()
        sys.exit(0)
