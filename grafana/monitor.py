"""``make monitor``: a cluster with Prometheus, the exporter, and Grafana where it is installed."""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grafana import programs

HERE = Path(__file__).resolve().parent
READY_SECONDS = 60.0
# A bench (`pegel bench … --prometheus 9310`) and an application may be scraped as well.
BENCH_PORT, CLIENTS_PORT = 9310, 9311


def main() -> None:
    arguments = _arguments()
    prometheus = programs.find("prometheus")
    if prometheus is None and arguments.fetch:
        problem = programs.fetch()
        if problem:
            sys.exit(f"monitor: {problem}")
        prometheus = programs.find("prometheus")
    if prometheus is None:
        sys.exit(
            "monitor: Prometheus is not installed. On Debian: make monitor FETCH=1 unpacks its "
            "package into .tools; elsewhere put prometheus on PATH, or use grafana/compose.yml"
        )
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.append(1))
    directory = Path(tempfile.mkdtemp(prefix="pegel-monitor-"))
    try:
        with _running(directory, arguments, prometheus) as processes:
            while not stopped and all(p.poll() is None for p in processes.values()):
                time.sleep(0.2)
            for name, process in processes.items():
                if process.poll() is not None and not stopped:
                    print(f"monitor: {name} has ended; its log is in {directory}", file=sys.stderr)
    finally:
        if stopped:
            shutil.rmtree(directory, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make monitor", description=__doc__)
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--base-port", type=int, default=9092, help="0 picks free ones")
    parser.add_argument("--data-dir", default="pegel-data")
    parser.add_argument("--prometheus-port", type=int, default=9090)
    parser.add_argument("--exporter-port", type=int, default=9308)
    parser.add_argument("--grafana-port", type=int, default=3000)
    parser.add_argument("--fetch", action="store_true", help="unpack Debian's Prometheus")
    return parser.parse_args()


@contextmanager
def _running(
    directory: Path, arguments: argparse.Namespace, prometheus: str
) -> Iterator[Mapping[str, subprocess.Popen[Any]]]:
    processes: dict[str, subprocess.Popen[Any]] = {}
    try:
        ready = _start_cluster(processes, arguments)
        http = [node["http"] for node in ready["nodes"]]
        exporter = f"127.0.0.1:{arguments.exporter_port}"
        _start(processes, directory, "exporter", [
            sys.executable, "-m", "pegel", "exporter", "-b", ready["bootstrap"],
            "--listen", exporter,
        ])  # fmt: skip
        address = f"127.0.0.1:{arguments.prometheus_port}"
        config = directory / "prometheus.json"
        config.write_text(json.dumps(_prometheus_config(http, exporter), indent=1))
        _start(processes, directory, "Prometheus", [
            prometheus, f"--config.file={config}", f"--web.listen-address={address}",
            f"--storage.tsdb.path={directory / 'prometheus'}", "--log.level=warn",
        ])  # fmt: skip
        _wait_for(f"http://{address}/-/ready", "Prometheus", processes, directory)
        print(f"cluster     {ready['bootstrap']}")
        print(f"nodes       {', '.join(f'http://{one}/' for one in http)}")
        print(f"exporter    http://{exporter}/metrics")
        print(f"Prometheus  http://{address}/   (alerts: http://{address}/alerts)")
        _start_grafana(processes, directory, arguments, address)
        print("Ctrl-C stops everything")
        sys.stdout.flush()
        yield processes
    finally:
        for process in reversed(processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _start_cluster(
    processes: dict[str, subprocess.Popen[Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Raises SystemExit with what the cluster said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pegel", "up", "--json", "--brokers", str(arguments.brokers),
         "--base-port", str(arguments.base_port), "--data-dir", arguments.data_dir],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    processes["the cluster"] = process
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    line = process.stdout.readline() if readable else ""
    if not line:
        sys.exit("monitor: the cluster did not start")
    ready: dict[str, Any] = json.loads(line)
    return ready


def _start(
    processes: dict[str, subprocess.Popen[Any]],
    directory: Path,
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> None:
    log = (directory / f"{name.lower()}.log").open("wb")
    processes[name] = subprocess.Popen(
        command, stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip


def _prometheus_config(nodes: Sequence[str], exporter: str) -> dict[str, Any]:
    """As ``prometheus/prometheus.yml``, with the addresses of this cluster (JSON is YAML)."""
    jobs = {
        "pegel": list(nodes), "pegel-exporter": [exporter],
        "pegel-bench": [f"127.0.0.1:{BENCH_PORT}"],
        "pegel-clients": [f"127.0.0.1:{CLIENTS_PORT}"],
    }  # fmt: skip
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": [str(HERE / "prometheus" / "rules" / "*.yml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": t, "labels": {"cluster": "local"}}]}
            for job, t in jobs.items()
        ],
    }


def _start_grafana(
    processes: dict[str, subprocess.Popen[Any]],
    directory: Path,
    arguments: argparse.Namespace,
    prometheus: str,
) -> None:
    program = programs.find("grafana")
    if program is None:
        print("Grafana     not installed; grafana/dashboards can be imported into any Grafana")
        return
    home = next(
        (p for p in ("/usr/share/grafana", str(Path(program).resolve().parents[1]))
         if (Path(p) / "public").is_dir()), None,
    )  # fmt: skip
    command = [program] + (["server"] if Path(program).name == "grafana" else [])
    _start(
        processes, directory, "Grafana", [*command, *(["--homepath", home] if home else [])],
        {
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(arguments.grafana_port),
            "GF_PATHS_DATA": str(directory / "grafana"),
            "GF_PATHS_PROVISIONING": str(HERE / "provisioning"),
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Editor",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "PEGEL_PROMETHEUS_URL": f"http://{prometheus}",
            "PEGEL_DASHBOARDS": str(HERE / "dashboards"),
        },
    )  # fmt: skip
    address = f"http://127.0.0.1:{arguments.grafana_port}"
    _wait_for(f"{address}/api/health", "Grafana", processes, directory)
    print(f"Grafana     {address}/dashboards")


def _wait_for(
    url: str, name: str, processes: Mapping[str, subprocess.Popen[Any]], directory: Path
) -> None:
    """Raises SystemExit."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and processes[name].poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    log = (directory / f"{name.lower()}.log").read_text().strip().splitlines()
    sys.exit(f"monitor: {name} did not start: {log[-1] if log else 'it says nothing'}")


if __name__ == "__main__":
    main()
