"""Options that commands share, and the way in which a command runs and fails."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from pegel.client import AsyncClient
    from pegel.credentials import Credentials

F = TypeVar("F", bound=Callable[..., object])

# Codes that say what cannot be done now, and not why.
_HEALTH_TELLS = {
    "LEADER_NOT_AVAILABLE", "KAFKA_STORAGE_ERROR", "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "COORDINATOR_NOT_AVAILABLE",
}  # fmt: skip
DEFAULT_BOOTSTRAP = "localhost:9092"
_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
_PASSWORD_VARIABLE = "PEGEL_PASSWORD"
_LOGIN = "pegel.login"


def cluster_options(function: F) -> F:
    """``--bootstrap`` and ``--timeout``, and who asks (``login_credentials``)."""
    function = _login_options(function)
    function = click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the cluster.",
    )(function)
    return click.option(
        "-b",
        "--bootstrap",
        envvar="PEGEL_BOOTSTRAP",
        default=DEFAULT_BOOTSTRAP,
        show_default=True,
        metavar="HOST:PORT,…",
        help="Any brokers of the cluster. Also from PEGEL_BOOTSTRAP.",
    )(function)


def _keep(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """For the command's connections; a group's options hold for its commands."""
    if value is not None:
        context.meta.setdefault(_LOGIN, {})[option.name] = value


def _login_options(function: F) -> F:
    function = click.option(
        "--mechanism",
        type=click.Choice(_MECHANISMS, case_sensitive=False),
        envvar="PEGEL_MECHANISM",
        expose_value=False,
        callback=_keep,
        help=f"How to log in. [default: {_MECHANISMS[0]}]",
    )(function)
    function = click.option(
        "--password-file",
        type=click.Path(exists=True, dir_okay=False),
        envvar="PEGEL_PASSWORD_FILE",
        expose_value=False,
        callback=_keep,
        help="Its first line is the password. Also from PEGEL_PASSWORD_FILE. Without it the "
        f"password is {_PASSWORD_VARIABLE}, or asked for; where both are set the file wins.",
    )(function)
    return click.option(
        "--user",
        envvar="PEGEL_USER",
        expose_value=False,
        callback=_keep,
        metavar="NAME",
        help="Who to log in as, where brokers want that. Also from PEGEL_USER.",
    )(function)


def login_credentials() -> Credentials | None:
    """What the command's options and the environment say of who asks.

    Raises:
        click.UsageError: a password without a user, or a user without a password.
    """
    from pegel.credentials import MECHANISMS

    context = click.get_current_context(silent=True)
    given = {} if context is None else context.meta.get(_LOGIN, {})
    if "user" not in given:
        if given:
            raise click.UsageError("give --user as well: who is to log in?")
        return None
    user, password = given["user"], os.environ.get(_PASSWORD_VARIABLE, "")
    if "password_file" in given:
        password = read_password(given["password_file"])
    elif not password and sys.stdin.isatty():
        password = click.prompt(f"Password for {user}", hide_input=True, err=True)
    if not password:
        raise click.UsageError(f"no password for {user}: give --password-file, or set "
                               f"{_PASSWORD_VARIABLE}")  # fmt: skip
    name = given.get("mechanism", _MECHANISMS[0])
    kind = next(kind for kind in MECHANISMS if kind.mechanism == name)
    try:
        return kind(user, password)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def read_password(path: str) -> str:
    """The first line of a file. Raises click.UsageError."""
    try:
        with open(path, encoding="utf-8") as file:
            line = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None
    if not line:
        raise click.UsageError(f"the first line of {path} is empty: it is to be a password")
    return line


def json_option(text: str = "Print one JSON document.") -> Callable[[F], F]:
    return click.option("--json", "as_json", is_flag=True, help=text)


def connect(bootstrap: str, timeout: float) -> AsyncClient:
    """A client for one command.

    Raises:
        click.BadParameter: the addresses make no sense.
    """
    from pegel.client import AsyncClient
    from pegel.config import ClientOptions

    options = ClientOptions(
        client_id="pegel-cli",
        request_timeout=timeout,
        connect_timeout=timeout,
        topic_grace=0.5,  # somebody waits for the answer
        credentials=login_credentials(),
    )
    try:
        return AsyncClient(bootstrap, options=options)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--bootstrap") from None


@contextmanager
def arguments_checked() -> Iterator[None]:
    """What a call refuses because of its arguments was typed by somebody: one line, no traceback.

    Around single calls only: anywhere else a ValueError is a bug of ours.
    """
    from pegel.errors import PegelError

    try:
        yield
    except (TypeError, ValueError) as error:
        raise PegelError(str(error)) from None


def run(work: Coroutine[None, None, None], *, interrupt_code: int = 1) -> None:
    """Run a command's work; errors become one line and exit code 1.

    Args:
        interrupt_code: exit code after Ctrl-C: 0 where that is how the command ends.
    """
    from pegel.errors import PegelError

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(work)
    except PegelError as error:
        fail(explain(error))
    except KeyboardInterrupt:
        sys.exit(interrupt_code)
    except BrokenPipeError:
        leave_broken_pipe()
    except OSError as error:  # a full disk, as a rule; the network's have names of their own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"the output cannot be written: {error.strerror or error}")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def explain(error: Exception) -> str:
    """One line: what went wrong, and what to do next where that is not said yet."""
    from pegel.errors import BrokerError, ConnectionFailedError, RequestTimeoutError

    text = " ".join(str(error).split())
    notes = " ".join(getattr(error, "__notes__", ()))
    if notes:
        text = f"{text} ({notes})"
    if isinstance(error, ConnectionFailedError | RequestTimeoutError):
        text += "; start a cluster with `pegel up`, or name yours with --bootstrap"
    if isinstance(error, BrokerError) and error.code.name in _HEALTH_TELLS:
        text += "; `pegel cluster health` tells why"
    return text


def fail(message: str) -> None:
    """Print one line to standard error and leave with exit code 1."""
    click.echo(f"pegel: {message}", err=True)
    sys.exit(1)


def leave_broken_pipe() -> None:
    """Whoever read our output has enough: leave quietly, and let no later flush complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def parse_settings(settings: Iterable[str], hint: str) -> dict[str, str]:
    """``KEY=VALUE`` pairs, such as retention.ms=3600000.

    Raises:
        click.BadParameter: one is not such a pair.
    """
    return dict(parse_pairs(settings, hint, "KEY=VALUE, such as retention.ms=3600000"))


def parse_pairs(pairs: Iterable[str], hint: str, form: str = "NAME=VALUE") -> list[tuple[str, str]]:
    """Pairs in their order; a name may come more than once.

    Raises:
        click.BadParameter: one is not of the ``form``.
    """
    found: list[tuple[str, str]] = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is not {form}", param_hint=hint)
        found.append((name, value))
    return found
