"""Random histories with slow disks, changing members, lost peers, reads and leases."""

from __future__ import annotations

import pytest

from tests.simulation.raft.simulator import run


@pytest.mark.parametrize("chunk", range(10))
def test_random_histories_keep_every_invariant(chunk: int) -> None:
    for seed in range(chunk * 100, chunk * 100 + 100):
        try:
            run(seed)
        except Exception as error:
            again = f"python -c 'from tests.simulation.raft.simulator import run; run({seed})'"
            raise AssertionError(f"seed {seed} failed; repeat with: {again}") from error
