"""The parent's side of worker processes: start them together, follow them, add up their results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from pegel.errors import PegelError
from pegel_bench.load.spec import LoadResult, LoadSpec

_STOP_WAIT = 10.0
_ENDINGS = (signal.SIGINT, signal.SIGTERM)
Watch = Callable[[str, list[dict[str, Any]]], None]


class Interrupt:
    """Ctrl-C, or SIGTERM: the first asks for partial results, the second ends at once.

    Either way what was started is stopped: clusters must not outlive their benchmark.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self._before = {n: signal.signal(n, self._on_signal) for n in _ENDINGS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def run_workers(spec: LoadSpec, processes: int, interrupt: Interrupt, watch: Watch) -> LoadResult:
    """One load on ``processes`` processes that begin together; their results added up.

    ``watch`` gets the phase and the latest figures of each worker, a few times a second.

    Raises:
        PegelError: a worker failed; its own words.
    """
    specs = [
        dataclasses.replace(spec, worker=n, workers=processes, rate=spec.rate / processes)
        for n in range(processes)
    ]
    return add_up(run_together(specs, interrupt, watch))


def run_together(specs: Sequence[LoadSpec], interrupt: Interrupt, watch: Watch) -> list[LoadResult]:
    """Loads that begin at the same moment, each in a process of its own. Raises PegelError."""
    workers = [_Worker(spec) for spec in specs]
    try:
        return _follow(workers, interrupt, watch)
    finally:
        for worker in workers:
            worker.end()


def _follow(workers: Sequence[_Worker], interrupt: Interrupt, watch: Watch) -> list[LoadResult]:
    selector = selectors.DefaultSelector()
    for worker in workers:
        selector.register(worker.output, selectors.EVENT_READ, worker)
    going = stopped = False
    while any(w.result is None for w in workers):
        if interrupt.asked and not stopped:
            stopped = True
            for worker in workers:
                worker.say("stop" if going else "end")
        for key, _ in selector.select(0.2):
            worker = key.data
            if not worker.read():
                selector.unregister(worker.output)
                if worker.result is None:
                    raise PegelError(worker.failure())
        if not going and all(w.ready for w in workers):
            going = True
            for worker in workers:
                worker.say("go")
        phases = {w.phase for w in workers}
        watch(max(phases, default=""), [w.figures for w in workers])
    return [w.result for w in workers if w.result is not None]


class _Worker:
    """One process."""

    def __init__(self, spec: LoadSpec) -> None:
        self.ready = False
        self.phase = "start"
        self.figures: dict[str, Any] = {}
        self.result: LoadResult | None = None
        self._failed = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pegel_bench.load.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which then asks for a result
        )
        assert self._process.stdout is not None
        self.output: IO[bytes] = self._process.stdout
        self.say(json.dumps(spec.to_json()))

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def read(self) -> bool:
        """Take one line; False at the end of the output."""
        line = self.output.readline()
        if not line:
            return False
        event = json.loads(line)
        match event.pop("event"):
            case "ready":
                self.ready = True
            case "progress":
                self.phase = event.pop("phase")
                self.figures = event
            case "failed":
                self._failed = event["message"]
            case "result":
                self.result = LoadResult(**event)
        return True

    def failure(self) -> str:
        if self._failed:
            return self._failed
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return f"a load generator ended without a result: {said[-1] if said else 'it said nothing'}"

    def end(self) -> None:
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if process.poll() is None and self.result is None:
            process.terminate()
        try:
            process.wait(_STOP_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def add_up(results: Sequence[LoadResult]) -> LoadResult:
    """One result of loads that ran at the same time."""
    from pegel_bench.load.latencies import encode, merge

    if len(results) == 1:
        return results[0]
    total = LoadResult(verified=all(r.verified for r in results))
    for name in ("requests", "sent", "acknowledged", "bytes", "failed", "lost", "doubled",
                 "sent_rate", "cpu_seconds", "broker_cpu_seconds"):  # fmt: skip
        setattr(total, name, sum(getattr(r, name) for r in results))
    total.seconds = max(r.seconds for r in results)
    total.behind_ms = max(r.behind_ms for r in results)
    total.interrupted = any(r.interrupted for r in results)
    total.histogram = encode(merge([r.histogram for r in results]))
    total.second_histogram = encode(merge([r.second_histogram for r in results]))
    total.notes = list(dict.fromkeys(note for r in results for note in r.notes))
    for result in results:
        for name, count in result.errors.items():
            total.errors[name] = total.errors.get(name, 0) + count
    return total


def settle(seconds: float, interrupt: Interrupt) -> None:
    """Wait, unless interrupted."""
    end = time.monotonic() + seconds
    while not interrupt.asked and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
