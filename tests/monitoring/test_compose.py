"""The container composition: what it mounts and names is there, and agrees with the rest."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.monitoring.tools import ROOT

FILE = ROOT / "grafana" / "compose.yml"


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return services


def _mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where in the container → where here."""
    found = {}
    for volume in service["volumes"]:
        source, target, mode = volume.split(":")
        assert mode == "ro", volume
        found[target] = source
    return found


def test_everything_it_mounts_exists() -> None:
    services = _services()
    assert set(services) == {"prometheus", "alertmanager", "grafana"}
    for name, service in services.items():
        for target, source in _mounts(service).items():
            assert source.startswith("./"), "relative to the file, wherever it is started from"
            assert (FILE.parent / source).exists(), f"{name}: {source}"
            assert target.startswith("/"), f"{name}: {target}"


def test_images_are_pinned_and_only_loopback_is_bound() -> None:
    for name, service in _services().items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert service["network_mode"] == "host", "the cluster listens on the host's loopback"
        said = [*service.get("command", ()), *service.get("environment", {}).values()]
        addresses = [s for s in said if re.search(r"\b0\.0\.0\.0\b|=:\d+$", str(s))]
        assert not addresses, f"{name}: {addresses}"


def test_its_files_name_each_other() -> None:
    """What a program is told to read is mounted, and Prometheus finds what it is to talk to."""
    services = _services()
    for name in ("prometheus", "alertmanager"):
        (config,) = [c for c in services[name]["command"] if c.startswith("--config.file=")]
        path = config.removeprefix("--config.file=")
        assert any(path.startswith(target) for target in _mounts(services[name])), path
    prometheus = yaml.safe_load((FILE.parent / "prometheus" / "prometheus.yml").read_text())
    for pattern in prometheus["rule_files"]:
        assert list((FILE.parent / "prometheus").glob(pattern)), pattern
    (alerting,) = prometheus["alerting"]["alertmanagers"]
    port = alerting["static_configs"][0]["targets"][0].rpartition(":")[2]
    assert any(c.endswith(f":{port}") for c in services["alertmanager"]["command"])
    environment = services["grafana"]["environment"]
    mounted = _mounts(services["grafana"])
    assert environment["PEGEL_DASHBOARDS"] in mounted
    # The provisioning takes its addresses from these.
    told = "".join(p.read_text() for p in (FILE.parent / "provisioning").rglob("*.yml"))
    used = set(re.findall(r"\$\{?(PEGEL_\w+)", told))
    assert used == {key for key in environment if key.startswith("PEGEL_")}
    (address,) = [c for c in services["prometheus"]["command"] if "listen-address" in c]
    assert environment["PEGEL_PROMETHEUS_URL"].rpartition(":")[2] == address.rpartition(":")[2]
