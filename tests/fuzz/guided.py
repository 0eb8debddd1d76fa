"""Coverage-guided fuzzing with Atheris (libFuzzer): inputs that reach new code are kept and varied.

``python -m tests.fuzz.guided broker --seconds 60``. The code of Pegel is instrumented as it is
imported, the codecs that it compiles at run time included. One input is one frame, without its
length, to a node that lives for some thousand of them. Inputs that were worth keeping are in
``tests/fuzz/guided/``, one a line in hexadecimal; ``test_guided.py`` plays them without Atheris.
``--keep FOLDER`` keeps what a run finds, and the input that failed (``failed-…``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import logging
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.inputs import Player

TARGETS = ("broker", "controller", "client", "http")
CORPUS = Path(__file__).parent / "guided"
INPUT_BYTES_MAX = 4096
EXAMPLES_MAX = 200
COVERED = b"INITED"  # libFuzzer's word once it has run what it began with
INPUT_SECONDS_MAX = 20
MEMORY_MIB_MAX = 2048
# The node is made anew then: what it has been told would slow it down.
INPUTS_OF_A_LIFE = 5_000
_STATUS = re.compile(rb"#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+)")


def is_there() -> bool:
    """Whether Atheris is installed: it has wheels for Linux and some Pythons only."""
    return importlib.util.find_spec("atheris") is not None


@dataclass(frozen=True, slots=True)
class Guided:
    """Figures of one run. ``covered`` counts edges, ``features`` edges by how often they ran."""

    target: str
    executions: int
    covered_at_start: int
    covered: int
    features: int
    failure: str

    def __str__(self) -> str:
        return (
            f"{self.target}, guided: {self.executions:,} inputs, {self.covered_at_start:,} edges "
            f"with the inputs it began with, {self.covered:,} at the end, "
            f"{self.features:,} features{self.failure and ': ' + self.failure}"
        )


def run(target: str, seconds: float, keep: Path | None = None) -> Guided:
    """Fuzz in a process of its own. ``keep``: a directory for the inputs that found something."""
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pegel-fuzz-")))
        found = keep or work / "found"
        for folder in (found, work / "seeds"):
            folder.mkdir(exist_ok=True)
        for number, data in enumerate(kept(target)):
            (work / "seeds" / f"kept-{number}").write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", target, "--worker", str(int(seconds)),
             str(found), str(work / "seeds")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            timeout=seconds + 300,
        )  # fmt: skip
        statuses = [
            (word, (int(number), int(covered), int(features)))
            for number, word, covered, features in _STATUS.findall(done.stdout)
        ]
        failure = ""
        if done.returncode:
            lines = done.stdout.decode(errors="replace").splitlines()
            told = [line for line in lines if re.search(r"Error|ERROR|input: ", line)]
            failure = " | ".join(told[:3]) or f"exit code {done.returncode}: {lines[-3:]}"
            failure += _kept_failure(target, found)
    begun = next((numbers for word, numbers in statuses if word == COVERED), (0, 0, 0))
    last = statuses[-1][1] if statuses else (0, 0, 0)
    return Guided(target, last[0], begun[1], last[1], last[2], failure)


def _kept_failure(target: str, found: Path) -> str:
    """The inputs that failed, where they stay, and the command that plays the first of them."""
    failed = sorted(found.glob("failed-*"))
    if not failed:
        return ""
    folder = Path(tempfile.mkdtemp(prefix=f"pegel-fuzz-{target}-"))
    for file in failed:
        shutil.copy(file, folder)
    played = shlex.quote(str(folder / failed[0].name))
    return f"\n  repeat: python -m tests.fuzz.guided {target} --play {played}"


def play(target: str, files: list[Path]) -> str:
    """Play inputs to a new target, without Atheris; what failed, or nothing."""
    from tests.fuzz import inputs

    async def work() -> str:
        player = inputs.Player(target, INPUTS_OF_A_LIFE)
        await player.start()
        try:
            for file in files:
                await player.play(file.read_bytes())
            await player.target.check()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            await player.target.stop()
            player.close()
        return ""

    return asyncio.run(work())


def kept(target: str) -> Iterator[bytes]:
    """The committed inputs."""
    file = CORPUS / f"{target}.txt"
    for line in file.read_text().splitlines() if file.exists() else []:
        yield bytes.fromhex(line)


def worker(target: str, seconds: int, found: str, seeds: str) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    logging.disable(logging.WARNING)
    with atheris.instrument_imports(include=["pegel", "pegel_broker", "pegel_controller"]):
        from pegel.protocol import compiler
        from tests.fuzz import inputs

    def instrumented(source: str, scope: dict[str, object]) -> None:
        code = compile(source, "<compiled codec>", "exec")
        exec(atheris.patch_code(code, True, nested=True), scope)

    compiler.exec = instrumented  # type: ignore[attr-defined]
    loop = asyncio.new_event_loop()
    player: Player = inputs.Player(target, INPUTS_OF_A_LIFE)
    loop.run_until_complete(player.start())
    examples = list(player.examples(random.Random(0)))
    # All are run before the first new one: a short run is not to spend itself on them.
    chosen = random.Random(seconds).sample(examples, min(len(examples), EXAMPLES_MAX))
    for number, data in enumerate(chosen):
        Path(seeds, f"example-{number}").write_bytes(data[:INPUT_BYTES_MAX])

    def one(data: bytes) -> None:
        loop.run_until_complete(player.play(data))

    arguments = [
        sys.argv[0], found, seeds, f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}", f"-rss_limit_mb={MEMORY_MIB_MAX}", "-len_control=0",
        f"-artifact_prefix={found}/failed-", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--keep", type=Path, help="a directory for the inputs that found something")
    parser.add_argument("--play", type=Path, nargs="+", help="play these inputs, and no others")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        seconds, found, seeds = options.worker
        worker(options.target, int(seconds), found, seeds)
    if options.play:
        failure = play(options.target, options.play)
        print(failure or f"{len(options.play)} inputs played, no failure")
        return 1 if failure else 0
    if not is_there():
        print("Atheris is not installed: pip install --group fuzz (Linux, wheels for some Pythons)")
        return 2
    figures = run(options.target, options.seconds, options.keep)
    print(figures)
    return 1 if figures.failure else 0


if __name__ == "__main__":
    sys.exit(main())
