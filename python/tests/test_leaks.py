# SPDX-License-Identifier: Apache-2.0
"""Nothing is left behind: each scenario thousands of times, and then no more memory in Python's
allocator, no more objects, no more references, and not noticeably more in the process."""

import asyncio
import ctypes
import gc
import os
import sys
import tracemalloc
import unittest
from typing import Any, Callable

import cairn

import kit
from kit import BLOCK, block
from test_blocks import Array

ROUNDS = int(os.environ.get("CAIRN_ROUNDS", "10000" if os.environ.get("CAIRN_SOAK") else "5000"))
# A leaked task is some hundred bytes, a leaked buffer 4 KiB: this is far below either, a round.
RSS_KIB = 48 * ROUNDS // 1024 + 768
TRACED_BYTES = 16384


def raises(what: Callable[[], object]) -> None:
    try:
        what()
    except (cairn.CairnError, ValueError, TypeError):
        return
    raise AssertionError("no exception")


class Leaks(kit.Case):
    def check(self, scenario: Callable[[], object], rounds: int = ROUNDS,
              rss_kib: int = RSS_KIB) -> None:
        for _ in range(max(rounds // 10, 5)):
            scenario()
        # What grows with a cache or an arena of the allocator's does so once; a leak every time.
        for _ in range(3):
            grown = self.growth(scenario, rounds, rss_kib)
            if not grown:
                return
        self.fail("; ".join(grown))

    def growth(self, scenario: Callable[[], object], rounds: int, rss_kib: int) -> list[str]:
        """What there is more of after so many rounds."""
        watched = (self.store, self.ns, self.room, self.keys, cairn.Future, cairn.Hold,
                   cairn.Queue, cairn.CairnError, cairn.Found)
        self.settle()
        tracemalloc.start()
        scenario()
        self.settle()
        references = [sys.getrefcount(o) for o in watched]
        objects = len(gc.get_objects())
        traced, resident = tracemalloc.get_traced_memory()[0], kit.rss_kib()
        for _ in range(rounds):
            scenario()
        self.settle()
        traced = tracemalloc.get_traced_memory()[0] - traced
        tracemalloc.stop()
        resident = kit.rss_kib() - resident
        found = []
        if references != [sys.getrefcount(o) for o in watched]:
            found.append(f"references: {references}, then {[sys.getrefcount(o) for o in watched]}")
        if len(gc.get_objects()) - objects > 50:
            found.append(f"{len(gc.get_objects()) - objects} more objects")
        if traced > TRACED_BYTES:
            found.append(f"{traced} bytes more in Python's allocator")
        if resident > rss_kib and "asan" not in os.environ.get("LD_PRELOAD", ""):
            found.append(f"{resident} KiB more in the process")
        return found

    def settle(self) -> None:
        self.store.quiesce()
        kit.within(20, lambda: self.store.stat().tasks_in_flight == 0)
        self.ns.load([], []).wait()  # takes what is left to reap
        gc.collect()

    def setUp(self) -> None:
        super().setUp()
        self.keys = self.filled(3)
        self.room = bytearray(3 * BLOCK)

    def test_keys_and_lookups(self) -> None:
        many = self.keys * 40
        parts = [self.keys[i:i + 16] for i in range(0, 48, 16)]

        def scenario() -> None:
            self.ns.key(b"a name")
            self.ns.keys([b"a", "b"])
            self.ns.lookup(parts)
            self.ns.lookup(many)
            self.ns.contains(parts[0])
            self.ns.lookup_prefix(self.keys)
            self.ns.found(parts + [bytes(16)])
            parts[0] in self.ns

        self.check(scenario)

    def test_holds(self) -> None:
        def scenario() -> None:
            with self.ns.hold(self.keys) as hold:
                int(hold)
            self.ns.hold(self.keys)

        self.check(scenario)

    def test_loads_and_dumps(self) -> None:
        attr = cairn.Attr(depth=1)

        def scenario() -> None:
            self.ns.load(self.keys, self.room, context=self.room).check()
            self.ns.load_sync(self.keys, self.room)
            self.ns.dump(self.keys, self.room, attrs=[attr, None, attr]).result()
            self.ns.dump_sync(self.keys, [self.room[:BLOCK]] * 3)

        self.check(scenario)

    def test_removes(self) -> None:
        def scenario() -> None:
            self.ns.remove(self.keys).wait()
            self.ns.dump_sync(self.keys, self.room)
            self.ns.remove_sync(self.keys)
            self.ns.prefetch(self.keys).wait()

        self.check(scenario, ROUNDS // 2)

    def test_kinds_of_buffers(self) -> None:
        text = (ctypes.c_char * BLOCK)()
        array, old = Array((BLOCK // 2,)), Array((BLOCK // 2,), versioned=False)
        halves = [bytearray(BLOCK // 2), memoryview(bytearray(BLOCK // 2))]
        many = [bytearray(64) for _ in range(BLOCK // 64)]

        def scenario() -> None:
            array.asked.clear()
            old.asked.clear()
            self.ns.load(self.keys, [array, old, halves]).check()
            self.ns.load_sync(self.keys, [(ctypes.addressof(text), BLOCK), many, self.room[:BLOCK]])

        self.check(scenario)

    def test_dropped_in_flight(self) -> None:
        def scenario() -> None:
            future = None
            while future is None:
                try:
                    future = self.ns.load(self.keys, self.room, context=object())
                except cairn.CairnError:
                    pass  # no slot now

        self.check(scenario)

    def test_queues(self) -> None:
        queue = self.store.queue()

        def scenario() -> None:
            for _ in range(3):
                self.ns.load(self.keys, self.room, queue=queue, context=object())
            while queue.pending:
                queue.drain(timeout=1)

        self.check(scenario)

    def test_queues_dropped_undrained(self) -> None:
        def scenario() -> None:
            queue = self.store.queue()
            queue.fileno()
            self.ns.load(self.keys, self.room, queue=queue).wait()

        self.check(scenario, ROUNDS // 10)

    def test_awaited(self) -> None:
        async def run() -> None:
            for _ in range(100):
                await self.ns.load(self.keys, self.room)

        self.check(lambda: asyncio.run(run()), max(ROUNDS // 100, 1))

    def test_registrations(self) -> None:
        def scenario() -> None:
            with self.store.register(self.room):
                raises(lambda: self.store.register(self.room, 1))
            self.store.register(self.room, BLOCK)
            raises(lambda: self.store.register(b"only read"))
            raises(lambda: self.store.register(0, 1))

        self.check(scenario)

    def test_pins_and_slots(self) -> None:
        name = os.path.basename(self.folder)
        ns = self.open(f"cache(size=64MiB, name={name}) | null(size=64MiB)").namespace(
            model="test", shard_bytes=BLOCK)
        there, absent = ns.key("there"), ns.key("absent")
        ns.dump([there], [block(0)]).check()

        def scenario() -> None:
            pin = ns.pin(there)
            assert pin is not None
            with pin as view:
                part = view[:8]
            del view, part
            ns.pin(there)
            ns.pin(absent)
            pin = ns.pin(there)
            assert pin is not None
            pin.__enter__()  # a cycle
            slot = ns.reserve(absent)
            assert slot is not None
            with slot:
                slot.view[:8] = b"12345678"
            slot = ns.reserve(absent)
            assert slot is not None
            slot.commit()
            ns.reserve(absent)
            ns.remove_sync(absent)
            raises(lambda: ns.reserve(absent, 1))

        self.check(scenario, ROUNDS // 4)

    def test_refusals(self) -> None:
        ns: Any = self.ns
        refusals: list[Callable[[], object]] = [
            lambda: ns.load(self.keys, bytes(3 * BLOCK)),
            lambda: ns.load(self.keys, [self.room]),
            lambda: ns.load(self.keys, [bytearray(BLOCK), bytearray(BLOCK), object()]),
            lambda: ns.load(self.keys, [bytearray(BLOCK), bytearray(BLOCK), 0]),
            lambda: ns.load_sync(self.keys, [self.room] * 3, shards=7),
            lambda: ns.load(self.keys, [[self.room]] * 3),
            lambda: ns.load(self.keys, [Array((4, BLOCK), (1, 4))] * 3),
            lambda: ns.dump(self.keys, [block(1)] * 3, attrs=[1, 2, 3]),
            lambda: ns.dump(self.keys, [block(1)] * 3, durability="durable"),
            lambda: ns.dump_sync(self.keys, [block(1)] * 3, durability="durable"),
            lambda: ns.load(self.keys, self.room, nothing=1),
            lambda: ns.load(b"x", self.room), lambda: ns.lookup([b"x"]),
            lambda: ns.keys(["a", ""]), lambda: ns.found(7),
            lambda: ns.load(ns.key("?"), bytearray(BLOCK)).check(),
        ]

        def scenario() -> None:
            for refusal in refusals:
                raises(refusal)

        self.check(scenario)

    def test_stores(self) -> None:
        def scenario() -> None:
            with cairn.Store("null(size=1MiB)") as store:
                ns = store.namespace(model="m", salt=b"s", shard_bytes=BLOCK)
                ns.dump([ns.key("a")], block(1)).check()
                store.stat()
                store.counters()
                store.stage_name(0)
            raises(lambda: cairn.Store("(("))
            raises(lambda: ns.key("a"))

        # Threads come and go, and with them their arenas: a store that leaks leaks far more.
        self.check(scenario, max(ROUNDS // 10, 10), 16384)


if __name__ == "__main__":
    unittest.main()
