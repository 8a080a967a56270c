# SPDX-License-Identifier: Apache-2.0
"""Futures, queues and asyncio: waiting, cancelling, dropping, and what is held until a release."""

import asyncio
import gc
import select
import signal
import sys
import threading
import time
import unittest
import weakref
from typing import Any, Callable

import cairn

import kit
from kit import BLOCK, block


class Slow(kit.Case):
    spec = kit.SLOW

    def start(self, room: bytearray | None = None, **words: object) -> cairn.Future:
        room = bytearray(BLOCK) if room is None else room
        return self.ns.load([self.ns.key("a")], [room], **words)  # type: ignore[arg-type]


class Waiting(Slow):
    def test_wait(self) -> None:
        future = self.start()
        self.assertGreater(future.id, 0)
        self.assertFalse(future.done() or future.released())
        self.assertFalse(future.wait(0))
        self.assertFalse(future.wait(0.001))
        self.assertTrue(future.wait())
        self.assertTrue(future.done() and future.released())
        self.assertTrue(future.wait(0, released=False))
        self.assertEqual(future.result(0), [-kit.errno.ENOENT])
        self.assertEqual(future.statuses, [-kit.errno.ENOENT])
        self.assertEqual((future.reached, future.stages), ([None], [1]))

    def test_too_early(self) -> None:
        future = self.start()
        for ask in (lambda: future.statuses, lambda: future.ok, lambda: future.failed,
                    lambda: future.reached, lambda: future.stages):
            self.refused(kit.errno.EBUSY, ask)
        for call in (future.result, future.check):
            with self.assertRaises(TimeoutError):
                call(0.001)
        future.wait()

    def test_arguments(self) -> None:
        future = self.start()
        for timeout in (-1, -0.5, float("nan")):
            with self.assertRaises(ValueError):
                future.wait(timeout)
        for wrong in ("1", [], object()):
            with self.assertRaises(TypeError):
                future.wait(wrong)  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            future.wait(1, True, 2)  # type: ignore[call-arg]
        self.assertTrue(future.wait(float("inf")))

    def test_many_threads_wait_for_one(self) -> None:
        future = self.start()
        answers: list[list[int]] = []
        threads = [threading.Thread(target=lambda: answers.append(future.result()))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [[-kit.errno.ENOENT]] * 8)

    def test_other_threads_run_meanwhile(self) -> None:
        """Calls that wait give the interpreter's lock away: else nobody would see them wait."""
        store = self.open('delay(hang="#1", hang_for=2s) | null')
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        key, room = ns.key("a"), bytearray(BLOCK)
        future = ns.load([key], bytearray(BLOCK), detach=True, deadline=60)
        thread = threading.Thread(target=future.wait)
        thread.start()
        future.cancel()
        thread.join()
        for call in (ns.load_sync, ns.dump_sync):
            thread = threading.Thread(
                target=lambda: call([key], room, detach=True, deadline=1))
            thread.start()
            self.assertTrue(kit.within(10, lambda: store.stat().tasks_in_flight > 0))
            thread.join()

    def test_other_threads_run_while_one_removes(self) -> None:
        store = self.open('delay(hang="#2", hang_for=2s) | null')
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        key = ns.key("a")
        ns.dump_sync([key], [block(1)])
        thread = threading.Thread(target=lambda: ns.remove_sync([key], deadline=1))
        thread.start()
        self.assertTrue(kit.within(10, lambda: store.stat().tasks_in_flight > 0))
        thread.join()

    def test_other_threads_run_while_one_closes(self) -> None:
        """A store with a task in it, and what is registered."""
        for registered in (False, True):
            store = self.open('delay(hang="#1", hang_for=2s) | null')
            ns = store.namespace(model="m", shard_bytes=BLOCK)
            memory = bytearray(BLOCK)
            what = store.register(memory) if registered else store
            ns.load([ns.key("a")], [memory], deadline=60)
            steps, seen = [0], [0, 0]

            def close(what: Any = what, steps: list[int] = steps, seen: list[int] = seen) -> None:
                seen[0] = steps[0]
                what.close()
                seen[1] = steps[0]

            thread = threading.Thread(target=close)
            thread.start()
            while thread.is_alive():
                steps[0] += 1
                time.sleep(0.002)
            # One of them may be on the way in or out of it.
            self.assertGreater(seen[1] - seen[0], 5, what)

    def test_signals_end_a_wait(self) -> None:
        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        store = self.open("delay(read=2s) | null")
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        future = ns.load([ns.key("a")], [bytearray(BLOCK)])
        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        queue = store.queue()
        for call in (future.result, lambda: queue.drain(timeout=1)):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with self.assertRaises(KeyboardInterrupt):
                call()
        future.cancel()
        future.wait(released=False)

    def test_cancel(self) -> None:
        store = self.open("delay(read=300ms, depth=1) | null(size=64MiB)")
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        futures = [ns.load([ns.key(f"k{i}")], [bytearray(BLOCK)]) for i in range(20)]
        for future in futures:
            future.cancel()
        statuses = {future.result()[0] for future in futures}
        self.assertIn(-kit.errno.ECANCELED, statuses)
        futures[0].cancel()

    def test_no_slot(self) -> None:
        store = self.open("store(tasks=2) | " + kit.SLOW)
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        futures = [ns.load([ns.key("a")], [bytearray(BLOCK)]) for _ in range(2)]
        room = bytearray(BLOCK)
        self.refused(kit.errno.EAGAIN, lambda: ns.load([ns.key("a")], [room]))
        room.extend(b"free again")
        queue = store.queue()
        self.refused(kit.errno.EAGAIN, lambda: ns.load([ns.key("a")], room[:BLOCK], queue=queue))
        self.assertEqual(queue.pending, 0)
        for future in futures:
            future.wait()
        ns.load([ns.key("a")], [bytearray(BLOCK)]).wait()

    def test_deadline(self) -> None:
        future = self.start(deadline=0.01)
        self.assertEqual(future.result(), [-kit.errno.ETIMEDOUT])
        self.assertEqual(self.ns.load_sync([self.ns.key("a")], bytearray(BLOCK), deadline=0.01),
                         [-kit.errno.ETIMEDOUT])


class Holding(Slow):
    def test_buffers_are_held_until_the_release(self) -> None:
        room = bytearray(BLOCK)
        future = self.start(room)
        with self.assertRaises(BufferError):
            room.clear()
        future.wait()
        room.clear()

    def test_dropped_in_flight(self) -> None:
        """Nothing frees what I/O targets, and all of it is free soon after the release."""
        room = bytearray(BLOCK)
        self.start(room)
        gc.collect()
        with self.assertRaises(BufferError):
            room.clear()

        def free() -> bool:
            try:
                room.clear()
            except BufferError:
                return False
            return True

        self.assertTrue(kit.within(10, free))

    def test_dropped_result_without_release(self) -> None:
        store = self.open(kit.HANGS)
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        room = bytearray(BLOCK)
        future = ns.load([ns.key("a")], [room])
        self.assertTrue(future.wait(released=False))
        self.assertEqual(future.statuses, [-kit.errno.ETIMEDOUT])
        del future
        self.assertTrue(kit.within(10, lambda: self.is_free(room)))

    def test_synchronous_call_that_timed_out(self) -> None:
        store = self.open(kit.HANGS)
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        room = bytearray(BLOCK)
        self.assertEqual(ns.load_sync([ns.key("a")], [room]), [-kit.errno.ETIMEDOUT])
        self.assertTrue(store.quiesce())
        self.assertTrue(self.is_free(room))

    @staticmethod
    def is_free(room: bytearray) -> bool:
        try:
            room.append(1)
            room.pop()
        except BufferError:
            return False
        return True

    def test_the_store_is_held(self) -> None:
        store = cairn.Store(kit.SLOW)
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        future = ns.dump([ns.key("a")], [block(1)])
        del store, ns
        gc.collect()
        with self.assertWarns(ResourceWarning):  # nobody else has it at the release
            self.assertEqual(future.result(), [0])
        self.assertEqual(future.statuses, [0])

    def test_cycles_are_collected(self) -> None:
        class Room(bytearray):
            future: cairn.Future

        room = Room(BLOCK)
        gone = weakref.ref(room)
        room.future = self.start(room, context=room)
        room.future.wait(released=False)
        del room
        self.assertTrue(kit.within(10, lambda: gone() is None))

        room = Room(BLOCK)
        gone = weakref.ref(room)
        room.future = self.start(room)
        del room
        gc.collect()
        self.assertIsNotNone(gone())  # in flight
        self.assertTrue(kit.within(10, lambda: gone() is None))

    def test_references(self) -> None:
        room = bytearray(BLOCK)
        before = sys.getrefcount(room)
        future = self.start(room)
        self.assertGreater(sys.getrefcount(room), before)
        future.result()
        self.assertEqual(sys.getrefcount(room), before)


class Queues(Slow):
    spec = "null(size=64MiB)"

    def test_drain(self) -> None:
        keys = self.filled(4)
        with self.store.queue() as queue:
            futures = [self.ns.load(keys, bytearray(4 * BLOCK), queue=queue, context=i)
                       for i in range(10)]
            drained: list[cairn.Future] = []
            while len(drained) < 10:
                drained += queue.drain(max=3, timeout=10)
            self.assertEqual(sorted(f.context for f in drained), list(range(10)))
            self.assertEqual({id(f) for f in drained}, {id(f) for f in futures})
            self.assertEqual(queue.drain(), [])
            self.assertEqual(queue.drain(timeout=0.001), [])
            self.assertEqual(queue.pending, 0)
        self.assertTrue(queue.closed)
        queue.close()

    def test_dropped_futures_come_all_the_same(self) -> None:
        keys, queue = self.filled(1), self.store.queue()
        for i in range(5):
            self.ns.load(keys, bytearray(BLOCK), queue=queue, context=i)
        gc.collect()
        got: list[int] = []
        while len(got) < 5:
            got += [f.context for f in queue.drain(timeout=10)]
        self.assertEqual(sorted(got), [0, 1, 2, 3, 4])

    def test_waited_for_and_drained(self) -> None:
        keys, queue = self.filled(1), self.store.queue()
        future = self.ns.load(keys, room := bytearray(BLOCK), queue=queue)
        future.check()
        self.assertEqual(room, block(0))
        self.assertEqual(queue.drain(timeout=10), [future])

    def test_event(self) -> None:
        keys, queue = self.filled(1), self.store.queue()
        poll = select.poll()
        poll.register(queue.fileno(), select.POLLIN)
        self.assertEqual(queue.fileno(), queue.fileno())
        self.assertEqual(poll.poll(0), [])
        for _ in range(3):
            self.ns.load(keys, bytearray(BLOCK), queue=queue)
            self.assertTrue(poll.poll(10000))
            self.assertTrue(kit.within(10, lambda: len(queue.drain()) == 1))
            self.assertEqual(poll.poll(0), [])

    def test_event_asked_for_late(self) -> None:
        keys, queue = self.filled(1), self.store.queue()
        self.ns.load(keys, bytearray(BLOCK), queue=queue).wait()
        poll = select.poll()
        poll.register(queue.fileno(), select.POLLIN)
        self.assertTrue(poll.poll(10000))

    def test_close(self) -> None:
        keys, queue = self.filled(1), self.store.queue()
        future = self.ns.load(keys, bytearray(BLOCK), queue=queue)
        self.refused(kit.errno.EBUSY, queue.close)
        future.wait()
        self.assertTrue(kit.within(10, lambda: len(queue.drain()) == 1))
        queue.close()
        for call in (queue.fileno, queue.drain, queue.__enter__,
                     lambda: self.ns.load(keys, bytearray(BLOCK), queue=queue)):
            self.refused(kit.errno.ECANCELED, call)

    def test_of_another_store(self) -> None:
        queue = self.open("null").queue()
        with self.assertRaises(ValueError):
            self.ns.load(self.filled(1), bytearray(BLOCK), queue=queue)

    def test_wrong_ones(self) -> None:
        queue = self.store.queue()
        with self.assertRaises(ValueError):
            queue.drain(-1)
        with self.assertRaises(ValueError):
            queue.drain(timeout=-1)
        self.assertEqual(queue.drain(0), [])
        with self.assertRaises(TypeError):
            queue.drain("1")  # type: ignore[arg-type]

    def test_dropped_with_what_it_has(self) -> None:
        class Marked:
            pass

        mark = Marked()
        gone = weakref.ref(mark)
        queue = self.store.queue()
        self.ns.load(self.filled(1), bytearray(BLOCK), queue=queue, context=mark).wait()
        del mark, queue
        self.assertTrue(kit.within(10, lambda: gone() is None))

    def test_drained_by_many_threads(self) -> None:
        keys, queue = self.filled(1), self.store.queue()
        got: list[int] = []
        ended = threading.Event()

        def drain() -> None:
            while not ended.is_set():
                got.extend(f.context for f in queue.drain(timeout=0.05))

        threads = [threading.Thread(target=drain) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(500):
            self.ns.load(keys, bytearray(BLOCK), queue=queue, context=i)
        self.assertTrue(kit.within(20, lambda: len(got) == 500))
        ended.set()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(got), list(range(500)))


class Asyncio(Slow):
    spec = "delay(read=20ms, write=1ms) | null(size=64MiB)"

    def test_await(self) -> None:
        keys = self.filled(2)

        async def load() -> list[int]:
            return await self.ns.load(keys, bytearray(2 * BLOCK))

        async def many() -> list[list[int]]:
            return await asyncio.gather(*(load() for _ in range(100)))

        self.assertEqual(asyncio.run(load()), [0, 0])
        self.assertEqual(asyncio.run(many()), [[0, 0]] * 100)

    def test_of_what_is_over(self) -> None:
        future = self.ns.load(self.filled(1), bytearray(BLOCK))
        future.wait()

        async def twice() -> tuple[list[int], list[int]]:
            return await future, await future

        self.assertEqual(asyncio.run(twice()), ([0], [0]))

    def test_awaited_by_two(self) -> None:
        async def both() -> tuple[list[int], list[int]]:
            future = self.start()

            async def one() -> list[int]:
                return await future

            return await asyncio.gather(one(), one())

        self.assertEqual(list(asyncio.run(both())), [[-kit.errno.ENOENT]] * 2)

    def test_the_loop_runs_meanwhile(self) -> None:
        async def run() -> int:
            future, ticks = self.start(), 0
            while not future.done():
                ticks += 1
                await asyncio.sleep(0.001)
            await future
            return ticks

        self.assertGreater(asyncio.run(run()), 0)

    def test_cancelled(self) -> None:
        """The buffers are the caller's again when the cancellation arrives."""
        store = self.open("delay(read=200ms, depth=1) | null(size=64MiB)")
        ns = store.namespace(model="m", shard_bytes=BLOCK)

        async def run() -> None:
            first = ns.load([ns.key("a")], bytearray(BLOCK))
            room = bytearray(BLOCK)
            future = ns.load([ns.key("b")], room)

            async def wait() -> list[int]:
                return await future

            task = asyncio.create_task(wait())
            await asyncio.sleep(0.02)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertTrue(future.released())
            self.assertEqual(future.statuses, [-kit.errno.ECANCELED])
            room.clear()
            await first

        asyncio.run(run())

    def test_cancelled_twice(self) -> None:
        store = self.open('store(deadline=10s) | delay(hang="#1", hang_for=3s) | null')
        ns = store.namespace(model="m", shard_bytes=BLOCK)

        async def run() -> None:
            future = ns.load([ns.key("b")], bytearray(BLOCK))

            async def wait() -> list[int]:
                return await future

            task = asyncio.create_task(wait())
            for _ in range(2):
                await asyncio.sleep(0.02)
                task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            await future

        asyncio.run(run())

    def test_timeout(self) -> None:
        async def run() -> None:
            with self.assertRaises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await self.start()

        asyncio.run(run())

    def test_loop_after_loop(self) -> None:
        for _ in range(20):
            async def load() -> list[int]:
                return await self.start()
            self.assertEqual(asyncio.run(load()), [-kit.errno.ENOENT])

    def test_loop_that_ends_before_the_task(self) -> None:
        futures: list[cairn.Future] = []

        async def begin() -> None:
            async def wait() -> None:
                futures.append(self.start())
                await futures[-1]
            asyncio.create_task(wait())
            await asyncio.sleep(0)

        asyncio.run(begin())
        self.assertTrue(futures[0].wait(10))

    def test_two_loops_in_two_threads(self) -> None:
        async def many() -> int:
            results = await asyncio.gather(*(self.wrapped() for _ in range(50)))
            return sum(len(r) for r in results)

        got: list[int] = []
        threads = [threading.Thread(target=lambda: got.append(asyncio.run(many())))
                   for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(got, [50, 50])

    async def wrapped(self) -> list[int]:
        return await self.start()


if __name__ == "__main__":
    unittest.main()
