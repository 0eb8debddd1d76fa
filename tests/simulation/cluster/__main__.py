"""``python -m tests.simulation.cluster``: many seeds, or one of them again.

``--seeds 1000`` runs seeds 0 to 999 on all cores and prints one line of figures; for a seed that
fails it prints which faults are needed and the command that repeats it. ``--seed 7`` runs one.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from tests.simulation.cluster.campaign import COMMAND, many
from tests.simulation.cluster.kernel import SimLoop
from tests.simulation.cluster.plan import draw_shape
from tests.simulation.cluster.simulate import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, action="append", help="run this one; may be repeated")
    parser.add_argument("--only", help="numbers of the faults to keep, such as 0,3 (or none)")
    parser.add_argument("--trace", help="write every event of the seed to this file")
    parser.add_argument("--log", action="store_true", help="with the nodes' log lines")
    parser.add_argument("--digest", action="store_true", help="print only the hash of each trace")
    options = parser.parse_args()
    if options.seed:
        return _some(options)
    if not options.seeds:
        parser.error("name --seeds N or --seed N")
    return many(options.first, options.seeds, options.processes)


def _some(options: argparse.Namespace) -> int:
    only = None
    if options.only is not None:
        only = [int(n) for n in options.only.split(",") if n.isdigit()]
    _set_up_logging(with_trace=options.log)
    failed = 0
    for seed in options.seed:
        report = simulate(seed, only=only, digest=True, keep_trace=options.trace is not None)
        failed += bool(report.violations)
        if options.trace:
            Path(options.trace).write_text("".join(report.trace))
        if options.digest:
            print(report.digest)
        else:
            print(f"seed {seed}: {draw_shape(seed)}")
            for number, fault in enumerate(report.faults):
                print(f"  fault {number if only is None else only[number]}: {fault}")
            for violation in report.violations:
                print(f"  VIOLATED {violation}")
            print(
                f"  {report.events} events, {report.acknowledged} acknowledged, {report.read} read"
                f", {report.simulated:.1f} s in {report.took:.2f} s, trace {report.digest}"
            )
    return 1 if failed else 0


class _TraceHandler(logging.Handler):
    """Puts log lines among the events."""

    def emit(self, record: logging.LogRecord) -> None:
        from asyncio import events

        loop = events._get_running_loop()
        if isinstance(loop, SimLoop):
            scheduler = loop._scheduler
            scheduler.trace.tell(f"{scheduler.now:.9f} LOG {loop.name} {record.getMessage()}\n")


def _set_up_logging(*, with_trace: bool) -> None:
    if with_trace:
        logging.getLogger().handlers[:] = [_TraceHandler()]
        logging.getLogger().setLevel(logging.DEBUG)
    else:
        logging.disable(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
