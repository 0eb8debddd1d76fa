from __future__ import annotations

import asyncio
import socket
import time

import uvloop

from pegel_controller.timer import STOOD_STILL, DeadlineTimer


def test_what_waits_in_a_socket_is_read_before_silence_is_judged() -> None:
    """uvloop's timers come before the next read where what the last one brought took long."""
    order: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        due = asyncio.Event()

        def on_due() -> None:
            order.append("timer")
            due.set()

        slow, to_slow = socket.socketpair()
        here, there = socket.socketpair()
        timer = DeadlineTimer(time.monotonic, on_due)

        def take_long() -> None:
            slow.recv(9)
            there.send(b"answer")
            time.sleep(2 * STOOD_STILL)

        with slow, to_slow, here, there:
            loop.add_reader(slow, take_long)
            loop.add_reader(here, lambda: order.append(here.recv(9).decode()))
            timer.arm(time.monotonic() + 0.01)
            to_slow.send(b"x")
            await due.wait()
            loop.remove_reader(slow)
            loop.remove_reader(here)

    uvloop.run(main())
    assert order == ["answer", "timer"]


def test_an_earlier_deadline_stays_armed_and_a_nearer_one_replaces_it() -> None:
    async def main() -> None:
        fired: list[float] = []
        timer = DeadlineTimer(time.monotonic, lambda: fired.append(time.monotonic()))
        began = time.monotonic()
        timer.arm(began + 60)
        timer.arm(began + 0.02)
        timer.arm(began + 60)
        while not fired:
            await asyncio.sleep(0.005)
        assert fired[0] >= began + 0.02
        timer.arm(time.monotonic() + 0.01)
        timer.cancel()
        await asyncio.sleep(0.05)
        assert len(fired) == 1

    uvloop.run(main())
