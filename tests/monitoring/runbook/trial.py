"""A section of the runbook, tried: its cause is brought about, it is looked at, it is mended."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.monitoring.runbook.text import head, is_command, panel_queries, sections
from tests.monitoring.stack import Stack
from tests.monitoring.test_prometheus import filled_in
from tests.monitoring.theatre import Scene

F = TypeVar("F", bound=Callable[..., None])
_PLACEHOLDER = re.compile(
    r"HOST:9098|:9092|\b(?:DATA_DIR|TOPIC|PARTITION|GROUP|FILE|LIMIT|BYTE|OFFSET|PID|ID|N)\b"
)  # fmt: skip
READY_SECONDS = 60.0
# How a node is started again, as the runbook says it.
SERVE = (
    "pegel server --config DATA_DIR/node-N/server.properties --log-file DATA_DIR/node-N/node.log"
)


@dataclass(frozen=True)
class Declared:
    """What a try runs of its section, each with a pattern of what has to be shown."""

    alert: str
    look: Mapping[str, str]
    do: Mapping[str, str]


# By the name of the test. Several may share an alert: there are several causes.
TRIES: dict[str, Declared] = {}


def tries(
    alert: str, *, look: Mapping[str, str] | None = None, do: Mapping[str, str] | None = None
) -> Callable[[F], F]:
    """A test that tries the section of ``alert``; it takes a ``trial``, and has to run all of it.

    Keys are what the runbook says, to the letter, values what has to be found in the answer.
    """
    declared = Declared(alert, look or {}, do or {})

    def decorate(test: F) -> F:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            trial: Trial = fixtures["trial"]
            test(**fixtures)
            left = [item for item in (*declared.look, *declared.do) if item not in trial.tried]
            assert not left, f"not tried: {left}"

        assert test.__name__ not in TRIES
        TRIES[test.__name__] = declared
        return run  # type: ignore[return-value]

    return decorate


@dataclass
class Trial:
    declared: Declared
    tried: list[str] = field(default_factory=list)
    _scene: Scene | None = None
    _names: dict[str, str] = field(default_factory=dict)

    @property
    def scene(self) -> Scene:
        assert self._scene is not None
        return self._scene

    def on(self, scene: Scene, *, already: bool = False) -> None:
        """Where it is played. The alert must not fire yet, but where it was played before."""
        self._scene = scene
        assert already or self.declared.alert not in scene.stack.firing()

    def names(self, node: int, **names: object) -> None:
        """What placeholders stand for; commands run in the directory of ``node``."""
        self._node = self.scene.cluster.nodes[node]
        self._names = {
            "HOST:9098": self._node.http, ":9092": f":{self._node.client.rpartition(':')[2]}",
            "DATA_DIR": str(self.scene.cluster.data_dir),
            "N": str(node), "ID": str(node), "PID": str(self._node.pid),
        } | {name: str(value) for name, value in names.items()}  # fmt: skip

    def fires(self, seconds: float = 90) -> None:
        """A real Prometheus finds the expression true for as long as the rule asks."""
        alert = self.declared.alert
        Stack.until(lambda: alert in self.scene.stack.firing(), f"{alert} fires", seconds)

    def clears(self, seconds: float = 120) -> None:
        alert = self.declared.alert
        Stack.until(lambda: alert not in self.scene.stack.firing(), f"{alert} is clear", seconds)

    def look(self, *starts: str, seconds: float = 0.0) -> None:
        """Run what **Look** says (all of it, or what begins so); it shows what it should.

        ``seconds``: it may take so long until it is shown.
        """
        chosen = [i for i in self.declared.look if not starts or i.startswith(starts)]
        assert chosen, starts
        for item in chosen:
            self._show(item, self.declared.look[item], seconds)

    def do(self, start: str, seconds: float = 0.0) -> None:
        """Run what **Do** says and begins so."""
        item = next(i for i in sorted(self.declared.do, key=len) if i.startswith(start))
        self._show(item, self.declared.do[item], seconds)

    # -- what is run

    def _show(self, item: str, pattern: str, seconds: float) -> None:
        self.sees(item, pattern, seconds)
        self.tried.append(item)

    def sees(self, item: str, pattern: str, seconds: float = 0.0) -> None:
        """As ``look``, for what is not written in the section; ``{N}`` is the node."""
        program = item.split(maxsplit=1)[0]
        if is_command(item) and program != "pegel" and shutil.which(program) is None:
            warnings.warn(f"not tried, {program} is not installed: {item}", stacklevel=2)
            return
        for name, value in self._names.items():
            pattern = pattern.replace(f"{{{name}}}", value)
        deadline = time.monotonic() + seconds
        while True:
            shown = self._run(item)
            if re.search(pattern, shown, re.MULTILINE):
                break
            assert time.monotonic() < deadline, f"{item}\ndoes not show {pattern}:\n{shown}"
            time.sleep(0.5)

    def _run(self, item: str) -> str:
        if item.startswith("panel "):
            return "\n".join(self._query(filled_in(query)) for query in panel_queries(item))
        filled = _PLACEHOLDER.sub(lambda found: self._names[found[0]], item)
        if not is_command(item):
            return self._query(filled)
        if item.startswith("pegel server"):
            return self._serve(filled)
        return self._shell(filled)[1]

    def run(self, command: str) -> None:
        """Run something that is not in the section. Raises AssertionError where it fails."""
        code, said = self._shell(command)
        assert code == 0, f"{command}: {said}"

    def _shell(self, command: str) -> tuple[int, str]:
        """Exit code and what is printed in the node's directory, errors included."""
        done = subprocess.run(
            ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self._environment(), cwd=self._node.data_dir, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def run_on(self, node: int, item: str) -> str:
        """As ``run``, on that node, with its names filled in."""
        self.names(node)
        return self._run(item)

    def gone(self) -> None:
        """Wait until the node has ended."""
        node = self._node
        Stack.until(lambda: not self.scene.cluster.is_running(node.node_id), "the node has ended")

    def _environment(self) -> dict[str, str]:
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PEGEL_BOOTSTRAP": self.scene.cluster.bootstrap}

    def _query(self, expression: str) -> str:
        lines = []
        for found in self.scene.stack.query(expression):
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(found["metric"].items()))
            lines.append(f"{{{labels}}} {found['value'][1]}")
        return "\n".join(lines)

    def _serve(self, command: str) -> str:
        """A node in the foreground, as long as the cluster of the test is there."""
        node = self._node
        node.process = subprocess.Popen(
            ["sh", "-c", f"exec {command} --json --until-eof"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env=self._environment(), cwd=node.data_dir.parent,
        )  # fmt: skip
        node.pid, node.alive, node.paused = node.process.pid, True, False

        def ready() -> bool:
            assert node.process is not None
            if node.process.poll() is not None:
                node.alive = False
                assert node.process.stderr is not None
                raise AssertionError(f"{command}: {node.process.stderr.read()}")
            return self._is_ready()

        Stack.until(ready, f"node {node.node_id} is ready", READY_SECONDS)
        return "ready"

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._node.http}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def untried() -> dict[str, tuple[set[str], set[str]]]:
    """By alert: what its section says and no try runs, and what tries run and no section says."""
    found = {}
    parts = {alert: (section.look, section.do) for alert, section in sections().items()}
    parts[""] = (head(), ())
    for alert, said in parts.items():
        declared = [one for one in TRIES.values() if one.alert == alert]
        for kind in (0, 1):
            written = set(said[kind])
            run = {item for one in declared for item in (one.look, one.do)[kind]}
            if written != run:
                name = f"{alert or 'the head'}: {('Look', 'Do')[kind]}"
                found[name] = (written - run, run - written)
        if not declared:
            found[f"{alert}: no try"] = (set(), set())
    return found
