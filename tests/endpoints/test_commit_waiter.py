"""Requests wait for commits of a writing thread: all of them wake, with few wakes of either side."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from vagus.endpoints.commit_waiter import CommitWaiter


def _wait_for_all(waiter: CommitWaiter, futures: list[Future[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*(waiter.wait_for(future) for future in futures))

    asyncio.run(main())


def test_the_writer_is_hurried_once_for_all_requests_of_a_turn_and_in_one_loop_after_another() -> None:
    hurried: list[int] = []
    futures: list[Future[None]] = []

    def commit() -> None:
        for future in futures:
            future.set_result(None)

    def hurry() -> None:
        hurried.append(len(futures))
        thread = threading.Thread(target=commit)
        thread.start()
        thread.join()

    waiter = CommitWaiter(hurry)
    for _ in range(2):
        futures[:] = [Future() for _ in range(100)]
        _wait_for_all(waiter, futures)
    assert hurried == [100, 100]


def test_a_commit_that_is_done_already_and_a_failed_one_wake_their_requests() -> None:
    done: Future[None] = Future()
    failed: Future[None] = Future()
    done.set_result(None)
    failed.set_exception(ValueError("no"))
    _wait_for_all(CommitWaiter(lambda: None), [done, failed])
