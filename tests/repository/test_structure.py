"""Rules of construction that a reviewer would otherwise have to remember.

Import direction, purity of cores, the three seams, and ratchets on length. A rule is relaxed by
editing the table here, with a reason, never by a comment in the code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "pegel": ROOT / "client" / "pegel",
    "pegel_controller": ROOT / "controller" / "pegel_controller",
    "pegel_broker": ROOT / "broker" / "pegel_broker",
    "pegel_bench": ROOT / "bench" / "pegel_bench",
}
MAY_IMPORT = {
    "pegel": {"pegel"},
    "pegel_controller": {"pegel", "pegel_controller"},
    "pegel_broker": {"pegel", "pegel_controller", "pegel_broker"},
    "pegel_bench": {"pegel", "pegel_bench"},
}
DEPENDENCIES = {
    "click",
    "confluent_kafka",
    "cramjam",
    "crc32c",
    "h11",
    "hdrh",
    "msgpack",
    "prometheus_client",
    "pytest",
    "rich",
    "scramp",
    "uvloop",
}

# Pure cores (DESIGN 2.1): no clock, no randomness but an injected one, no I/O, no concurrency.
CORES = [
    "controller/pegel_controller/raft/election.py",
    "controller/pegel_controller/raft/log_view.py",
    "controller/pegel_controller/raft/messages.py",
    "controller/pegel_controller/raft/node.py",
    "controller/pegel_controller/raft/progress.py",
    "controller/pegel_controller/raft/quorum.py",
    "controller/pegel_controller/raft/ready.py",
    "controller/pegel_controller/raft/replication.py",
    "controller/pegel_controller/raft/wal_format.py",
    "controller/pegel_controller/metadata",
    "controller/pegel_controller/control",
    "controller/pegel_controller/rpc/credential_messages.py",
    "controller/pegel_controller/rpc/messages.py",
    "controller/pegel_controller/rpc/quorum_messages.py",
    "controller/pegel_controller/rpc/reassignment_messages.py",
    "broker/pegel_broker/replication/partition.py",
    "broker/pegel_broker/replication/isr.py",
    "broker/pegel_broker/replication/high_watermark.py",
    "broker/pegel_broker/replication/fetch_session.py",
    "broker/pegel_broker/replication/followed.py",
    "broker/pegel_broker/replication/results.py",
    "broker/pegel_broker/replication/throttle.py",
    "broker/pegel_broker/coordinator/effects.py",
    "broker/pegel_broker/coordinator/kinds.py",
    "broker/pegel_broker/coordinator/partitioning.py",
    "broker/pegel_broker/coordinator/timers.py",
    "broker/pegel_broker/group",
    "broker/pegel_broker/log/checkpoints.py",
    "broker/pegel_broker/log/compaction.py",
    "broker/pegel_broker/log/index.py",
    "broker/pegel_broker/log/leader_epochs.py",
    "broker/pegel_broker/log/producer_state.py",
    "broker/pegel_broker/log/reading.py",
    "broker/pegel_broker/log/recovery.py",
    "broker/pegel_broker/log/retention.py",
    "broker/pegel_broker/log/tail.py",
    "broker/pegel_broker/log/validation.py",
    "client/pegel/producer/idempotence.py",
    "client/pegel/producer/partitioner.py",
    "client/pegel/consumer/assignors.py",
    "client/pegel/consumer/group_protocol.py",
    "client/pegel/consumer/membership.py",
    "client/pegel/balance/leaders.py",
    "client/pegel/balance/model.py",
    "client/pegel/balance/placing.py",
    "client/pegel/balance/planner.py",
    "client/pegel/consumer/subscription.py",
    "client/pegel/exporter/lag.py",
    "client/pegel/record",
    "client/pegel/protocol/messages",
    "client/pegel/protocol/schema.py",
    "client/pegel/scram.py",
    "client/pegel/seams/beat.py",
]
IMPURE_MODULES = {
    "asyncio", "concurrent", "multiprocessing", "os", "select", "selectors", "signal", "socket",
    "subprocess", "tempfile", "threading", "time", "uvloop",
}  # fmt: skip

# Where files, sockets and clocks may be touched: the seams, and the outermost shells that make
# processes and talk to terminals.
SEAM_FILES = {
    "client/pegel/seams/clock.py",
    "client/pegel/seams/disk.py",
    "client/pegel/seams/network.py",
}
OUTERMOST = ("client/pegel/cli/", "client/pegel/testing/", "bench/", "broker/pegel_broker/up.py",
             "broker/pegel_broker/cli.py", "broker/pegel_broker/layout.py",
             "broker/pegel_broker/grow.py", "broker/pegel_broker/claim.py",
             "broker/pegel_broker/__main__.py")  # fmt: skip
WORLD_MODULES = {"socket", "subprocess", "select", "selectors", "fcntl", "shutil", "tempfile"}

WORLD_CALLS = {
    "asyncio.open_connection", "asyncio.start_server", "io.open", "open", "os.fdopen", "os.open",
    "time.monotonic", "time.sleep", "time.time",
}  # fmt: skip

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 90


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*.py") if "__pycache__" not in p.parts)


def _all_sources() -> list[Path]:
    return [p for root in SOURCES.values() for p in _files(root)]


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each module imported at run time (``TYPE_CHECKING`` counts too)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("package", sorted(SOURCES))
def test_imports_go_one_way_only(package: str) -> None:
    wrong = []
    for path in _files(SOURCES[package]):
        for line, name in _imports(path):
            top = name.split(".", maxsplit=1)[0]
            ours = top.startswith("pegel")
            allowed = top in MAY_IMPORT[package] if ours else (
                top in sys.stdlib_module_names or top in DEPENDENCIES or top == "__future__"
            )  # fmt: skip
            if not allowed:
                wrong.append(f"{_relative(path)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def _core_files() -> list[Path]:
    files: list[Path] = []
    for entry in CORES:
        path = ROOT / entry
        assert path.exists(), f"{entry} is listed as a core but does not exist"
        files += _files(path) if path.is_dir() else [path]
    return files


def test_cores_are_pure() -> None:
    wrong = []
    for path in _core_files():
        tree = ast.parse(path.read_text())
        imports_random = any(
            alias.name == "random" and alias.asname is None
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        )
        for line, name in _imports(path):
            if name.split(".", maxsplit=1)[0] in IMPURE_MODULES:
                wrong.append(f"{_relative(path)}:{line} imports {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await):
                wrong.append(f"{_relative(path)}:{node.lineno} is asynchronous")
            # The module `random` only for the type of an injected, seeded generator.
            if (
                imports_random
                and isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "random"
                and node.attr != "Random"
            ):
                wrong.append(f"{_relative(path)}:{node.lineno} uses random.{node.attr}")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"open", "print", "input"}
            ):
                wrong.append(f"{_relative(path)}:{node.lineno} calls {node.func.id}()")
    assert not wrong, "\n".join(wrong)


def test_only_the_seams_touch_the_world() -> None:
    wrong = []
    for path in _all_sources():
        name = _relative(path)
        if name in SEAM_FILES or name.startswith(OUTERMOST):
            continue
        for line, module in _imports(path):
            if module.split(".", maxsplit=1)[0] in WORLD_MODULES:
                wrong.append(f"{name}:{line} imports {module}")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            if call in WORLD_CALLS:
                wrong.append(f"{name}:{node.lineno} calls {call}()")
            if call.endswith((".create_connection", ".create_server")):
                wrong.append(f"{name}:{node.lineno} calls {call}()")
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in [*_all_sources(), *_files(ROOT / "tests")]:
        text = path.read_text()
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            long.append(f"{_relative(path)}: {lines} lines (at most {MAX_FILE_LINES})")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    where = f"{_relative(path)}:{node.lineno} {node.name}"
                    long.append(f"{where}: {length} lines (at most {MAX_FUNCTION_LINES})")
    assert not long, "\n".join(long)


def test_every_package_is_typed() -> None:
    for root in SOURCES.values():
        assert (root / "py.typed").exists(), f"{root.name} lacks py.typed"


def test_every_module_says_what_it_is() -> None:
    silent = [
        _relative(path)
        for path in _all_sources()
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent, "\n".join(silent)


def test_every_dependency_has_its_reason_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    names = {name.replace("_", "-") for name in DEPENDENCIES - {"pytest"}}
    missing = sorted(name for name in names if f"`{name}`" not in readme)
    assert not missing, f"README.md does not say why these are here: {missing}"
