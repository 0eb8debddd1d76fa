"""Writes ``client/pegel/sync`` from the asynchronous classes: ``make facade``.

Each public method becomes one with the same name, parameters, types and docstring, which runs
the asynchronous one in the client's own thread. What differs by nature stands in ``BODIES``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLIENT = ROOT / "client" / "pegel"
TARGET = CLIENT / "sync"


@dataclass(frozen=True)
class Facade:
    """One class to write; ``sources`` are the files of the class and of its bases."""

    target: str
    name: str
    inner: str
    sources: tuple[str, ...]
    summary: str
    extra_imports: str = ""


FACADES = (
    Facade(
        "admin.py", "Admin", "admin.admin.Admin",
        ("admin/admin.py", "admin/groups.py", "admin/quorum.py", "admin/reassignments.py",
         "admin/records.py", "admin/users.py"),
        "Admin calls of one client",
    ),
    Facade(
        "producer.py", "Producer", "producer.producer.Producer", ("producer/producer.py",),
        "Writes records", "from pegel.sync.portal import Pending",
    ),
    Facade(
        "consumer.py", "Consumer", "consumer.consumer.Consumer", ("consumer/consumer.py",),
        "Reads records", "from collections.abc import Iterator",
    ),
    Facade(
        "client.py", "Client", "client.AsyncClient", ("client.py",), "A client of one cluster",
        "from dataclasses import replace\n"
        "from pegel.sync.admin import Admin\n"
        "from pegel.sync.consumer import Consumer\n"
        "from pegel.sync.producer import Producer\n",
    ),
)  # fmt: skip

TYPES = {
    "AsyncIterator[ConsumerBatch]": "Iterator[ConsumerBatch]",
    "AsyncIterator[ConsumerRecord]": "Iterator[ConsumerRecord]",
    "Delivery": "Pending[RecordMetadata]",
    "ManyDelivery": "Pending[SendResult]",
}

# What is not simply the asynchronous method run elsewhere.
BODIES = {
    "Client.__init__": '''
        def __init__(
            self,
            bootstrap: str = "localhost:9092",
            *,
            credentials: Credentials | None = None,
            options: ClientOptions | None = None,
        ) -> None:
            # Nothing but this client runs on the portal's loop: no thread for heartbeats.
            chosen = replace(options or ClientOptions(), heartbeat_thread=False)
            inner = AsyncClient(bootstrap, credentials=credentials, options=chosen)
            self._portal = Portal()
            self._inner = inner
            self.admin = Admin(self._portal, inner.admin)
    ''',
    "Client.close": '''
        def close(self) -> None:
            DOC
            if self._portal.foreign:
                return
            try:
                with suppress(ClosedError):
                    self._portal.call(self._inner.close())
            finally:
                self._portal.stop()
    ''',
    "Consumer.batches": '''
        def batches(self) -> Iterator[ConsumerBatch]:
            DOC
            loop = object()
            while True:
                batch = self._portal.call(self._inner.read(None, loop))
                assert batch is not None
                yield batch
    ''',
    "Consumer.__aiter__": '''
        def __iter__(self) -> Iterator[ConsumerRecord]:
            DOC
            loop = object()
            while True:
                # A record of the batch at hand costs no way into the other thread.
                record = self._inner.next_of_batch(loop)
                if record is None:
                    record = self._portal.call(self._inner.next_record(loop))
                yield record
    ''',
    "Consumer.__anext__": '''
        def __next__(self) -> ConsumerRecord:
            DOC
            record = self._inner.next_of_batch()
            return self._portal.call(self._inner.__anext__()) if record is None else record
    ''',
    "__aexit__": '''
        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            self._portal.call(self._inner.__aexit__(kind, error, traceback))
    ''',
    "Client.__aexit__": '''
        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            if self._portal.foreign:  # the block goes on in a fork's child: it is the parent's
                return
            try:
                self._portal.call(self._inner.__aexit__(kind, error, traceback))
            finally:
                self._portal.stop()
    ''',
    "__aenter__": '''
        def __enter__(self) -> NAME:
            self._portal.call(self._inner.__aenter__())
            return self
    ''',
}  # fmt: skip
# Of use to this package alone.
LEFT_OUT = {"next_of_batch", "next_record", "read", "__repr__"}
DUNDERS = {"__aenter__", "__aexit__", "__aiter__", "__anext__"}


MIXINS = ("GroupAdmin", "QuorumAdmin", "ReassignmentAdmin", "RecordAdmin", "UserAdmin")


def _classes(facade: Facade) -> list[ast.ClassDef]:
    wanted = {
        facade.inner.rsplit(".", 1)[1],
        "GroupAdmin",
        "QuorumAdmin",
        "ReassignmentAdmin",
        "RecordAdmin",
        "UserAdmin",
    }
    found: list[ast.ClassDef] = []
    for source in facade.sources:
        tree = ast.parse((CLIENT / source).read_text())
        found += [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name in wanted]
    return found


def _imports(facade: Facade) -> str:
    lines: list[str] = []
    for source in facade.sources:
        for node in ast.parse((CLIENT / source).read_text()).body:
            if isinstance(node, ast.Import):
                lines.append(ast.unparse(node))
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                for alias in node.names:
                    if alias.name not in {"Admin", "Consumer", "Producer"}:
                        lines.append(f"from {node.module} import {ast.unparse(alias)}")
    return "\n".join(dict.fromkeys(lines))


def _constants(facade: Facade) -> str:
    """Types and defaults of the module that signatures name."""
    text = "".join(ast.unparse(c) for c in _classes(facade))
    lines: list[str] = []
    for source in facade.sources:
        for node in ast.parse((CLIENT / source).read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name in {"Offsets", "_CLOSE_TIMEOUT"} and name in text:
                    lines.append(ast.unparse(node))
    return "\n".join(lines)


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    args = function.args
    parts = [a.arg for a in args.args[1:]]
    if args.vararg is not None:
        parts.append(f"*{args.vararg.arg}")
    parts += [f"{a.arg}={_value(a.arg)}" for a in args.kwonlyargs]
    return ", ".join(parts)


def _value(name: str) -> str:
    return f"self._portal.hook({name})" if name.startswith("on_") else name


def _method(facade: Facade, function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    name = function.name
    doc = ast.get_docstring(function, clean=False)
    own = BODIES.get(f"{facade.name}.{name}") or BODIES.get(name)
    if own is not None:
        lines = own.replace("NAME", facade.name).strip("\n").splitlines()
        text = "\n".join(line[4:] for line in lines).rstrip()
        return text.replace("DOC", f'"""{doc}"""')
    result = ast.unparse(function.returns) if function.returns is not None else "None"
    result = TYPES.get(result, result)
    head = f"def {name}({ast.unparse(function.args)}) -> {result}:"
    if doc is not None:
        head += f'\n        """{doc}"""'
    is_property = any(ast.unparse(d) == "property" for d in function.decorator_list)
    call = f"self._inner.{name}({_arguments(function)})"
    if is_property:
        body = f"return self._portal.run(lambda: self._inner.{name})"
        return f"    @property\n    {head}\n        {body}"
    if isinstance(function, ast.AsyncFunctionDef):
        if result.startswith("Pending"):
            body = (
                f"inner = self._portal.call({call})\n"
                "        return Pending(self._portal, inner, lambda: inner.done)"
            )
        else:
            body = f"return self._portal.call({call})"
    else:
        given = _arguments(function)
        body = f"self._portal.run(self._inner.{name}{', ' if given else ''}{given})"
        body = f"return {result}(self._portal, {body})" if result in {
            "Consumer", "Producer"} else f"return {body}"  # fmt: skip
    return f"    {head}\n        {body}"


def generate(facade: Facade) -> str:
    """The module's text, not yet formatted."""
    module, inner = facade.inner.rsplit(".", 1)
    methods: list[str] = []
    names: set[str] = set()
    for cls in _classes(facade):
        for node in cls.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            public = not node.name.startswith("_") or node.name in DUNDERS
            wanted = f"{facade.name}.{node.name}" in BODIES or (
                public and node.name not in LEFT_OUT
            )
            if wanted and node.name not in names:
                names.add(node.name)
                methods.append(_method(facade, node))
    if facade.name != "Client":
        methods.insert(0, (
            f"    def __init__(self, portal: Portal, inner: Async{facade.name}) -> None:\n"
            "        self._portal, self._inner = portal, inner"
        ))  # fmt: skip
    alias = f" as Async{facade.name}" if facade.name != "Client" else ""
    return "\n".join([
        f'"""``{facade.name}``, synchronous. Generated by ``make facade``: do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        "from contextlib import suppress",
        _imports(facade),
        f"from pegel.{module} import {inner}{alias}",
        "from pegel.errors import ClosedError",
        "from pegel.sync.portal import Portal",
        facade.extra_imports,
        "",
        _constants(facade),
        "",
        f"class {facade.name}:",
        f'    """{facade.summary} without asyncio, from any thread.',
        "",
        f"    Same names and types as ``pegel.{facade.inner}``, whose words hold here too.",
        '    """',
        "",
        "\n\n".join(methods),
        "",
    ])  # fmt: skip


def formatted(text: str, path: Path) -> str:
    """As ``make format`` would leave it, without imports that are not used."""
    for command in (
        ["check", "--fix-only", "--quiet", "--select", "F401,I"],
        ["format", "--quiet"],
    ):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"],
            input=text, text=True, capture_output=True, check=True, cwd=ROOT,
        ).stdout  # fmt: skip
    return text


def main() -> None:
    for facade in FACADES:
        path = TARGET / facade.target
        path.write_text(formatted(generate(facade), path))
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
