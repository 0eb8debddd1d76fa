"""``python -m pegel_bench.load.worker``: one process that makes load, for ``pegel bench``."""

from __future__ import annotations

import gc
import resource
import signal
import sys

from pegel.errors import PegelError
from pegel_bench.load.asking import Asker
from pegel_bench.load.control import Control
from pegel_bench.load.ledger import Ledger, verify
from pegel_bench.load.spec import LoadResult, LoadSpec


def check(
    asker: Asker, spec: LoadSpec, control: Control, ledger: Ledger, result: LoadResult
) -> None:
    """Look for every acknowledged record in the log, and say in ``result`` what is not there.

    Raises:
        OSError, PegelError: the log cannot be read.
    """
    if not spec.verify or result.interrupted:
        return
    total = ledger.records

    def tick(checked: int) -> None:
        control.progress("verify", checked=checked, total=total)

    verdict = verify(asker, spec.topic, ledger, tick)
    result.lost += verdict.lost
    result.doubled += verdict.doubled
    result.verified = True


def _load(spec: LoadSpec, control: Control) -> LoadResult:
    if spec.kind == "consume":
        from pegel_bench.load import consuming

        return consuming.run(spec, control)
    if spec.kind == "end-to-end":
        from pegel_bench.load import end_to_end

        return end_to_end.run(spec, control)
    if spec.kind == "probe":
        from pegel_bench.load import probing

        return probing.run(spec, control)
    if spec.driver == "pegel":
        from pegel_bench.load import own_produce

        return own_produce.run(spec, control)
    if spec.driver == "librdkafka":
        from pegel_bench.load import librdkafka

        return librdkafka.run(spec, control)
    from pegel_bench.load.raw_produce import RawProduce

    return RawProduce(spec, control).run()


def main() -> None:
    """One spec in, progress and one result out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells when to stop
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    control = Control()
    spec = LoadSpec(**control.read_spec())
    # A collection takes milliseconds, which would be counted as the broker's.
    gc.freeze()
    gc.disable()
    try:
        result = _load(spec, control)
    except (PegelError, OSError) as error:
        control.emit("failed", message=" ".join(f"{error}".split()) or type(error).__name__)
        sys.exit(1)
    control.emit("result", **result.to_json())


if __name__ == "__main__":
    main()
