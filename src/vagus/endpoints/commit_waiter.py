"""Lets requests of an event loop wait for the writer's commits with one wake-up for each commit; writes nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class CommitWaiter:
    """Waits with one wake of the writer for each turn of the loop, and one wake of the loop for each commit.

    asyncio.wrap_future wakes the loop for each future: a system call and a change of threads, which cost more than a
    signature. Under load dozens of requests share a commit.
    """

    def __init__(self, hurry: Callable[[], None]) -> None:
        """`hurry` makes the writer commit at once what was begun patiently; it is called on the loop's thread."""
        self._hurry = hurry
        self._of_loop: _LoopWaiters | None = None

    async def wait_for(self, committed: Future[Any]) -> None:
        """Return once `committed` has its result or its error; the caller reads them."""
        loop = asyncio.get_running_loop()
        if self._of_loop is None or self._of_loop.loop is not loop:
            self._of_loop = _LoopWaiters(loop, self._hurry)
        await self._of_loop.add(committed)


class _LoopWaiters:
    """The waiters of one loop.

    `_note` runs on the writing thread, everything else on the loop's. They share `_resolved`, a deque, whose append
    and popleft are atomic, and the flag `_is_called`. No waiter is lost: `_note` appends before it reads the flag, and
    `_release` clears the flag before it empties the deque. When `_note` finds the flag set, the `_release` that is
    still to clear it will find what was appended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, hurry: Callable[[], None]) -> None:
        self.loop = loop
        self._hurry = hurry
        self._is_hurry_due = False
        self._resolved: deque[asyncio.Future[None]] = deque()
        self._is_called = False

    def add(self, committed: Future[Any]) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = self.loop.create_future()
        committed.add_done_callback(lambda _: self._note(waiter))
        # One call of hurry for all requests of this turn. Without it a patient act would wait for its time limit.
        if not self._is_hurry_due:
            self._is_hurry_due = True
            # call hurry after every request that this turn of the loop still begins
            self.loop.call_soon(self._hurry_once)
        return waiter

    def _hurry_once(self) -> None:
        self._is_hurry_due = False
        self._hurry()

    def _note(self, waiter: asyncio.Future[None]) -> None:
        # This runs on the writing thread, inside the future's callback. Append before reading the flag: see the class.
        self._resolved.append(waiter)
        if not self._is_called:
            self._is_called = True
            self.loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        # Clear the flag before emptying the deque: a waiter that is appended after the last popleft finds the flag
        # cleared, and calls this method again.
        self._is_called = False
        while self._resolved:
            waiter = self._resolved.popleft()
            if not waiter.done():  # the request may have been cancelled while it waited for the commit
                waiter.set_result(None)
