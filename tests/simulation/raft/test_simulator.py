"""Random histories of the Raft core keep every invariant; the same seed is the same history."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.raft.__main__ import again
from tests.simulation.raft.simulator import run

SEEDS, CHUNK = 2_000, 100
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_random_histories_keep_every_invariant(first: int) -> None:
    for seed in range(first, first + CHUNK):
        try:
            run(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed} failed; repeat with: {again(seed)}") from error


def test_the_same_seed_is_the_same_history_whatever_the_hash_seed() -> None:
    command = [sys.executable, "-m", "tests.simulation.raft", "--seeds", "12", "--digest"]
    digests = {
        subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1
    assert len(set(digests.pop().split())) == 12, "each seed is a history of its own"


def test_another_seed_is_another_history() -> None:
    assert run(1, trace=True).digest() != run(2, trace=True).digest()


def test_a_fault_can_be_taken_out_of_a_seed() -> None:
    assert (
        run(3, without=["crash", "bounce_voters", "power", "strike", "leader_crash"]).faults.crash
        == 0
    )
