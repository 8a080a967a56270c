# SPDX-License-Identifier: Apache-2.0
"""await of a Future: one queue an event loop, whose eventfd the loop watches."""

import asyncio
import weakref
from typing import Generator

from ._cairn import Future, Queue, _loop_queue


class _Loop:
    """The Futures that one event loop waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue: Queue = _loop_queue()
        self.waiting: dict[Future, asyncio.Future[None]] = {}
        loop.add_reader(self.queue.fileno(), self.ready)

    def ready(self) -> None:
        for future in self.queue.drain(1024):
            waiter = self.waiting.pop(future, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def waiter_of(self, future: Future, loop: asyncio.AbstractEventLoop
                  ) -> "asyncio.Future[None] | None":
        """None: the task was released meanwhile."""
        waiter = self.waiting.get(future)
        if waiter is None and future._watch(self.queue):
            waiter = self.waiting[future] = loop.create_future()
        return waiter


_loops: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop]" = weakref.WeakKeyDictionary()


async def _until_released(future: Future) -> list[int]:
    loop = asyncio.get_running_loop()
    watched = _loops.get(loop)
    if watched is None:
        watched = _loops[loop] = _Loop(loop)
    waiter = None if future.released() else watched.waiter_of(future, loop)
    if waiter is not None:
        try:
            await asyncio.shield(waiter)
        except asyncio.CancelledError:
            # The buffers are the caller's again when this ends, so the release is waited for;
            # cancelled once more, no longer.
            future.cancel()
            await asyncio.shield(waiter)
            raise
    return future.result()


def wait(future: Future) -> Generator[object, None, list[int]]:
    """What Future.__await__() gives."""
    return _until_released(future).__await__()
