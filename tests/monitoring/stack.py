"""A real Prometheus, and Alertmanager, over a running cluster.

The rules are those in ``grafana/``; for tests their times are divided by ``speed``, so that an
alert which waits for a minute is seen to come and go within seconds. Expressions stay as they are.
"""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.monitoring.tools import ROOT, tool

RULES = ROOT / "grafana" / "prometheus" / "rules"
SCRAPE_SECONDS = 1.0
# Below this a range may hold a single sample, of which no rate can be taken.
_LEAST_RANGE = 5 * SCRAPE_SECONDS
_UNITS = {"s": 1, "m": 60, "h": 3600}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quicker(rules: str, speed: float) -> str:
    """The rules with every range, ``offset`` and ``for`` divided by ``speed``."""

    def seconds(number: str, unit: str) -> float:
        return int(number) * _UNITS[unit] / speed

    def in_range(found: re.Match[str]) -> str:
        return f"[{max(_LEAST_RANGE, seconds(found[1], found[2])):.0f}s]"

    text = re.sub(r"\[(\d+)([smh])\]", in_range, rules)
    text = re.sub(
        r"offset (\d+)([smh])",
        lambda m: f"offset {max(1, math.ceil(seconds(m[1], m[2])))}s",
        text,
    )
    text = re.sub(r"for: (\d+)([smh])", lambda m: f"for: {math.ceil(seconds(m[1], m[2]))}s", text)
    return re.sub(r"interval: \d+s", "interval: 1s", text)


# Alertmanager reads its templates from where Debian's package has them, and nowhere else.
_TEMPLATES = Path("/usr/share/prometheus/alertmanager/default.tmpl")
_OVERLAY = 'mount -t overlay pegel -o lowerdir="$0:/usr/share" /usr/share && exec "$@"'


def _in_its_place(program: str) -> list[str]:
    """The command for a program that may only be unpacked: it sees its files where they belong,
    and nobody else does. Skips where neither is possible."""
    share = Path(program).resolve().parents[1] / "share"
    if _TEMPLATES.exists() or not (share / _TEMPLATES.relative_to("/usr/share")).exists():
        return [program]
    wrapped = ["unshare", "--mount", "sh", "-c", _OVERLAY, str(share)]
    tried = subprocess.run([*wrapped, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"Alertmanager is not installed, only unpacked: {tried.stderr.strip()}")
    return [*wrapped, program]


class Stack:
    """Prometheus, and Alertmanager where asked for; use it with ``with``.

    ``targets`` are host:port by job.
    """

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, Sequence[str]],
        *,
        speed: float = 1.0,
        alertmanager: bool = False,
    ) -> None:
        self._directory = directory
        self._speed = speed
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port, self._alert_port = free_port(), free_port()
        self._alertmanager = alertmanager
        self._targets = {job: list(addresses) for job, addresses in targets.items()}
        self._programs = [tool("prometheus")] + ([tool("alertmanager")] if alertmanager else [])

    def __enter__(self) -> Stack:
        self._directory.mkdir(parents=True, exist_ok=True)
        names = []
        for path in sorted(RULES.glob("*.yml")):
            (self._directory / path.name).write_text(quicker(path.read_text(), self._speed))
            names.append(path.name)
        interval = f"{int(SCRAPE_SECONDS * 1000)}ms"
        config: dict[str, Any] = {
            "global": {
                "scrape_interval": interval, "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": names,
        }  # fmt: skip
        if self._alertmanager:
            target = f"127.0.0.1:{self._alert_port}"
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [target]}]}]}
            self._start_alertmanager(target)
        self._config = config
        self._write({})
        self._start(
            self._programs[0], f"--config.file={self._directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn",
            # A target that stops is to be missed at once, not after five minutes.
            "--query.lookback-delta=5s",
        )  # fmt: skip
        self.until(lambda: self._ready(self._port), "Prometheus is ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _write(self, clusters: Mapping[str, str]) -> None:
        scraped = [
            {
                "job_name": job,
                "static_configs": [
                    {"targets": [one], "labels": {"cluster": clusters.get(one, "test")}}
                    for one in found
                ],
            }
            for job, found in self._targets.items()
        ]
        # JSON is YAML.
        text = json.dumps(self._config | {"scrape_configs": scraped})
        (self._directory / "prometheus.yml").write_text(text)

    def relabel(self, clusters: Mapping[str, str]) -> None:
        """Give targets, by address, a label ``cluster`` of their own; Prometheus reads it anew."""
        self._write(clusters)
        self._processes[-1].send_signal(signal.SIGHUP)

    def _start(self, *command: str) -> None:
        log = (self._directory / f"{Path(command[0]).name}.log").open("wb")
        self._processes.append(
            subprocess.Popen(command, cwd=self._directory, stdout=log, stderr=log)
        )

    def _start_alertmanager(self, address: str) -> None:
        config = ROOT / "grafana" / "prometheus" / "alertmanager.yml"
        self._start(
            *_in_its_place(self._programs[1]), f"--config.file={config}",
            f"--web.listen-address={address}",
            f"--storage.path={self._directory / 'alerts'}", "--cluster.listen-address=",
        )  # fmt: skip
        self.until(lambda: self._ready(self._alert_port), "Alertmanager is ready")

    @staticmethod
    def _ready(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    # -- questions

    def _get(self, path: str, port: int | None = None, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{port or self._port}{path}?{query}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector. Raises HTTPError where the expression is wrong."""
        found = self._get("/api/v1/query", query=expression)["data"]
        if found["resultType"] == "scalar":
            return [{"metric": {}, "value": found["result"]}]
        result: list[dict[str, Any]] = found["result"]
        return result

    def firing(self) -> set[str]:
        """Names of the alerts that fire in Prometheus."""
        found = self._get("/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def received(self) -> dict[str, dict[str, Any]]:
        """What Alertmanager shows as active, by name."""
        found = self._get("/api/v2/alerts", self._alert_port, active="true", inhibited="false")
        return {alert["labels"]["alertname"]: alert for alert in found}

    def up(self) -> int:
        """Targets that are scraped."""
        return sum(result["value"][1] == "1" for result in self.query("up"))

    @staticmethod
    def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait for it. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:g} s: {what}")
            time.sleep(0.1)
