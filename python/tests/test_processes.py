# SPDX-License-Identifier: Apache-2.0
"""fork and spawn: a child of a fork owns nothing, says so, and neither hangs nor crashes."""

import asyncio
import gc
import multiprocessing
import os
import sys
import time
import traceback
import unittest
import warnings
from typing import Any, Callable

import cairn

import kit
from kit import BLOCK, block


def in_child(what: Callable[[], None]) -> int:
    """The exit status of a fork that does so, and ends as Python does: 0 if all went well."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            what()
            gc.collect()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def spawned(spec: str, name: bytes, pipe: Any) -> None:
    with cairn.Store(spec) as store:
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        room = bytearray(BLOCK)
        pipe.send((ns.load_sync([ns.key(name)], room), bytes(room)))


class Forks(kit.Case):
    spec = kit.SLOW

    def test_everything_is_refused(self) -> None:
        keys = self.ns.keys(["a", "b"])
        queue = self.store.queue()
        queue.fileno()
        room = bytearray(2 * BLOCK)
        hold = self.ns.hold(keys)
        future = self.ns.load(keys, room, queue=queue)

        def child() -> None:
            for call in (self.store.stat, self.store.counters, self.store.quiesce,
                         self.store.queue, lambda: self.store.namespace(model="x"),
                         lambda: self.ns.key(b"x"), lambda: self.ns.keys([b"x"]),
                         lambda: self.ns.lookup(keys), lambda: self.ns.found(keys),
                         lambda: self.ns.contains(keys[:16]), lambda: self.ns.hold(keys),
                         lambda: self.ns.load(keys, room), lambda: self.ns.load_sync(keys, room),
                         lambda: self.ns.dump(keys, room), lambda: self.ns.remove(keys),
                         lambda: self.ns.prefetch(keys), self.ns.clear, future.wait,
                         future.result, queue.drain, queue.fileno, self.store.__enter__):
                self.refused(kit.errno.EOWNERDEAD, call)
            future.cancel()
            hold.release()
            queue.close()
            self.store.close()

        self.assertEqual(in_child(child), 0)
        self.assertEqual(future.result(), [-kit.errno.ENOENT] * 2)
        self.assertEqual(self.store.stat().tasks_in_flight, 0)

    def test_dropped_in_the_child(self) -> None:
        rooms = [bytearray(BLOCK) for _ in range(10)]
        held = [self.ns.load([self.ns.key("a")], room) for room in rooms]
        queue = self.store.queue()
        held.append(self.ns.load([self.ns.key("a")], rooms[0], queue=queue))

        def child() -> None:
            nonlocal queue
            held.clear()
            del queue
            gc.collect()
            for room in rooms[1:]:
                room.clear()

        self.assertEqual(in_child(child), 0)
        for future in held:
            self.assertEqual(future.result(), [-kit.errno.ENOENT])

    def test_child_opens_a_store_of_its_own(self) -> None:
        held = self.ns.dump([self.ns.key("a")], [block(1)])

        def child() -> None:
            with cairn.Store("null(size=1MiB)") as store:
                ns = store.namespace(model="m", shard_bytes=BLOCK)
                queue = store.queue()
                ns.dump([ns.key("a")], [block(1)]).check()
                future = ns.load([ns.key("a")], room := bytearray(BLOCK), queue=queue)
                assert queue.drain(timeout=20) == [future]
                assert room == block(1)

                async def load() -> list[int]:
                    return await ns.load([ns.key("a")], bytearray(BLOCK))

                assert asyncio.run(load()) == [0]
                self.assertEqual(in_child(lambda: self.is_parents(store)), 0)

        self.assertEqual(in_child(child), 0)
        held.check()

    def is_parents(self, store: cairn.Store) -> None:
        self.refused(kit.errno.EOWNERDEAD, store.stat)

    def test_forked_while_others_call(self) -> None:
        import threading
        store = self.open("null(size=64MiB)")
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        ended = threading.Event()

        def work() -> None:
            i = 0
            while not ended.is_set():
                ns.dump([ns.key(b"%d" % i)], block(i))
                ns.load_sync([ns.key(b"%d" % i)], bytearray(BLOCK))
                i += 1

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()

        def child() -> None:
            self.refused(kit.errno.EOWNERDEAD, store.stat)
            with cairn.Store("null") as own:
                own.namespace(model="m", shard_bytes=BLOCK)

        for _ in range(15):
            self.assertEqual(in_child(child), 0)
        ended.set()
        for thread in threads:
            thread.join()


class Multiprocessing(kit.Case):
    spec = "posix(path={folder}/kv, shared=yes)"

    def test_spawn_and_fork(self) -> None:
        ns = self.store.namespace(model="m", shard_bytes=BLOCK)
        ns.dump([ns.key("a")], [block(3)], durability="written").check()
        for method in ("spawn", "fork"):
            context: Any = multiprocessing.get_context(method)
            ours, theirs = context.Pipe()
            process = context.Process(target=spawned, args=(self.store.spec, b"a", theirs))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            self.assertTrue(ours.poll(60))
            self.assertEqual(ours.recv(), ([0], block(3)))
            process.join(60)
            self.assertEqual(process.exitcode, 0)

    def test_handles_do_not_travel(self) -> None:
        import pickle
        for handle in (self.store, self.ns, self.store.queue()):
            with self.assertRaises(TypeError):
                pickle.dumps(handle)


class Lent(kit.Case):
    """Memory of the engine's that is registered, and of the store's that is lent."""

    def test_in_a_child(self) -> None:
        name = os.path.basename(self.folder)
        store = self.open(f"cache(size=64MiB, name={name}) | null(size=64MiB)")
        ns = store.namespace(model="test", shard_bytes=BLOCK)
        ns.dump([ns.key("a")], [block(0)]).check()
        data = bytearray(BLOCK)
        registered, pin, slot = store.register(data), ns.pin(ns.key("a")), ns.reserve(ns.key("b"))
        assert pin is not None and slot is not None
        view = pin.view

        def child() -> None:
            bytes(view)  # whatever the parent has there: no crash
            uses: list[Callable[[], object]] = [lambda: bytes(pin), lambda: slot.view, slot.commit]
            for use in uses:
                with self.assertRaises(ValueError):
                    use()
            for call in (lambda: store.register(data), lambda: ns.pin(ns.key("a")),
                         lambda: ns.reserve(ns.key("c"))):
                self.refused(kit.errno.EOWNERDEAD, call)
            registered.close()
            pin.release()
            slot.abort()

        self.assertEqual(in_child(child), 0)
        self.assertFalse(registered.closed)
        self.assertEqual(view, block(0))
        slot.view[:] = block(1)
        self.assertEqual(slot.commit(), 0)
        pin.release()
        registered.close()


if __name__ == "__main__":
    unittest.main()
