"""What counts as there, as lost, as doubled."""

from __future__ import annotations

from pegel_bench.load.ledger import Checker, Ledger


def entries(*batches: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    ledger = Ledger()
    for base, count, crc in batches:
        ledger.add(0, base, count, crc)
    return ledger.entries(0)


def test_all_there_in_whatever_order_it_was_acknowledged() -> None:
    checker = Checker(entries((10, 5, 2), (0, 10, 1)))
    checker.take(0, 10, 1)
    checker.take(10, 15, 2)
    verdict = checker.finish()
    assert (verdict.checked, verdict.lost, verdict.doubled) == (15, 0, 0)


def test_batches_of_others_between_are_nobodys_loss() -> None:
    checker = Checker(entries((3, 2, 1), (9, 1, 2)))
    for base, end, crc in ((0, 3, 8), (3, 5, 1), (5, 9, 8), (9, 10, 2)):
        checker.take(base, end, crc)
    assert checker.done
    assert checker.finish().lost == 0


def test_a_hole_a_wrong_batch_and_a_short_log_are_lost() -> None:
    checker = Checker(entries((0, 2, 1), (2, 2, 2), (4, 3, 3), (7, 1, 4)))
    checker.take(0, 2, 1)
    checker.take(4, 7, 9)  # offsets 2 and 3 are missing; at 4 stands another batch; 7 is not there
    assert checker.finish().lost == 2 + 3 + 1


def test_without_checksums_ranges_are_compared_by_offsets() -> None:
    """A client library merges and splits calls into batches of its own."""
    checker = Checker(entries((0, 4, 0), (4, 4, 0), (8, 4, 0)))
    checker.take(0, 6, 1)
    checker.take(6, 7, 2)  # 7 is missing
    checker.take(8, 12, 3)
    assert checker.finish().lost == 1


def test_an_offset_that_was_acknowledged_twice() -> None:
    assert Checker(entries((0, 4, 1), (2, 4, 2))).verdict.doubled == 2
