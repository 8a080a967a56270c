# SPDX-License-Identifier: Apache-2.0
"""Memory that is registered, and memory of a memory tier in place: pins and slots."""

import ctypes
import gc
import mmap
import os
import threading
import unittest
from typing import Callable

import cairn

import kit
from kit import BLOCK, block


class Registered(kit.Case):
    spec = "posix(path={folder}/kv, size=64MiB)"

    def test_forms(self) -> None:
        area = mmap.mmap(-1, 1 << 20)
        self.addCleanup(area.close)
        data = ctypes.create_string_buffer(BLOCK)
        for memory in (area, memoryview(area), bytearray(BLOCK), data):
            with self.store.register(memory) as registered:
                self.assertFalse(registered.closed)
                self.assertEqual(registered.length, memoryview(memory).nbytes)
            self.assertTrue(registered.closed)
        address = ctypes.addressof(data)
        pair = (address, BLOCK)
        calls: list[Callable[[], cairn.Registration]] = [
            lambda: self.store.register(address, BLOCK), lambda: self.store.register(pair),
            lambda: self.store.register(data, BLOCK)]
        for call in calls:
            with call() as registered:
                self.assertEqual((registered.address, registered.length), pair)
        with self.store.register(area, length=4096) as registered:
            self.assertEqual(registered.length, 4096)

    def test_garbage(self) -> None:
        data = bytearray(BLOCK)
        for wrong in (None, "text", 1.5, object(), [data], b"only read", True):
            with self.assertRaises((TypeError, ValueError)):
                self.store.register(wrong)  # type: ignore[arg-type]
        for address, length in ((0, 4096), (4096, 0), (-1, 1), (1 << 64, 1), (1, 1 << 63),
                                ((1 << 64) - 10, 4096)):
            with self.assertRaises(ValueError, msg=f"{address}, {length}"):
                self.store.register(address, length)
        with self.assertRaises(TypeError):
            self.store.register(4096)
        for length in (0, BLOCK + 1, -1):
            with self.assertRaises(ValueError):
                self.store.register(data, length)
        with self.assertRaises(ValueError):
            self.store.register(bytearray())
        with self.assertRaises(TypeError):
            self.store.register(memoryview(data)[::2])
        with self.assertRaises(TypeError):
            self.store.register(data, "4096")  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            cairn.Registration()
        data.append(1)  # nothing holds it

    def test_overlap(self) -> None:
        data = bytearray(4 * BLOCK)
        view = memoryview(data)
        with self.store.register(view[BLOCK:3 * BLOCK]):
            for first, end in ((0, 2), (2, 4), (0, 4), (1, 3)):
                self.refused(kit.errno.EINVAL,
                             lambda: self.store.register(view[first * BLOCK:end * BLOCK]))
            self.store.register(view[:BLOCK]).close()
        self.store.register(view).close()

    def test_a_buffer_cannot_be_freed(self) -> None:
        data = bytearray(BLOCK)
        area = mmap.mmap(-1, BLOCK)
        first, second = self.store.register(data), self.store.register(area)
        changes: list[Callable[[], object]] = [lambda: data.append(1), data.clear, area.close]
        for change in changes:
            with self.assertRaises(BufferError):
                change()
        first.close()
        first.close()
        second.close(timeout=5)
        data.append(1)
        area.close()
        with self.assertRaises(ValueError):
            first.__enter__()

    def test_dropped(self) -> None:
        data = bytearray(BLOCK)
        self.store.register(data)  # ends with the object
        gc.collect()
        data.append(1)
        kept = self.store.register(data)
        data = bytearray(1)
        self.store.close()
        self.refused(kit.errno.ECANCELED, lambda: self.store.register(bytearray(BLOCK)))
        self.assertFalse(kept.closed)
        kept.close()  # of a closed store: lets go of the buffer
        self.assertTrue(kept.closed)

    def test_loads_into_it(self) -> None:
        keys = self.filled(16)
        area = mmap.mmap(-1, 16 * BLOCK)
        self.addCleanup(area.close)
        with self.store.register(area), memoryview(area) as view:
            self.ns.load(keys, view).check()
            for i in range(16):
                self.assertEqual(view[i * BLOCK:(i + 1) * BLOCK], block(i))
            absent = self.ns.load([self.ns.key("absent")], [view[:BLOCK]]).result()
            self.assertEqual(absent, [-kit.errno.ENOENT])
            self.assertEqual(self.ns.load_sync(keys, view, detach=True), [0] * 16)

    def test_close_waits_for_tasks(self) -> None:
        store = self.open(kit.HANGS)
        ns = store.namespace(model="test", shard_bytes=BLOCK)
        data = bytearray(BLOCK)
        registered = store.register(data)
        future = ns.dump([ns.key("a")], [data])
        with self.assertRaises(TimeoutError):
            registered.close(0.05)
        self.assertFalse(registered.closed)
        with self.assertRaises(BufferError):
            data.append(1)
        registered.close(60)
        # Its task is over; the future is told of it a moment later.
        self.assertTrue(future.wait(60))


class InPlace(kit.Case):
    spec = "cache(size=64MiB, name={folder}) | null(size=64MiB)"

    def open(self, spec: str) -> cairn.Store:
        # A region's name is no path: the folder's own is one of this test alone.
        return super().open(spec.replace("{folder}", os.path.basename(self.folder)))

    def pinned(self, key: bytes) -> cairn.Pin:
        pin = self.ns.pin(key)
        assert pin is not None
        return pin

    def reserved(self, name: str) -> cairn.Slot:
        slot = self.ns.reserve(self.ns.key(name))
        assert slot is not None
        return slot

    def test_a_pin(self) -> None:
        keys = self.filled(2)
        with self.pinned(keys[:16]) as view:
            self.assertEqual(view, block(0))
            self.assertTrue(view.readonly)
            self.assertEqual(view.nbytes, BLOCK)
            with self.assertRaises(TypeError):
                view[0] = 1
        with self.assertRaises(ValueError):
            view[0]
        pin = self.pinned(keys[16:])
        self.assertEqual((bytes(pin), len(pin), pin.closed), (block(1), BLOCK, False))
        self.assertIs(pin.view, pin.view)
        pin.release()
        pin.release()
        self.assertTrue(pin.closed)
        for use in (lambda: bytes(pin), lambda: pin.view, lambda: pin.__enter__()):
            with self.assertRaises(ValueError):
                use()
        self.assertIsNone(self.ns.pin(self.ns.key("absent")))

    def test_a_view_that_outlives_its_pin(self) -> None:
        keys = self.filled(1)
        with self.pinned(keys) as view:
            part = view[8:16]
            array = (ctypes.c_char * BLOCK).from_buffer_copy(view)
        with self.assertRaises(ValueError):
            bytes(view)
        self.ns.remove([keys]).check()
        self.ns.dump([self.ns.key("x%d" % i) for i in range(64)],
                     [bytes(BLOCK)] * 64).check()
        self.assertEqual(part, block(0)[8:16])  # still pinned, by the part
        self.assertEqual(array.raw, block(0))
        with self.assertRaises(BufferError):
            self.store.close()
        self.assertFalse(self.store.closed)
        self.assertTrue(self.ns.contains(self.ns.key("x1")))
        del part
        self.store.close()
        self.assertTrue(self.store.closed)

    def test_detached_loads_are_copied_once(self) -> None:
        """Out of memory straight to where they belong; what is not there is a miss, as ever."""
        keys = self.filled(40) + self.ns.key("absent")
        before = self.store.counters()
        room = bytearray(41 * BLOCK)
        future = self.ns.load(keys, room, detach=True)
        self.assertEqual(future.result(), [0] * 40 + [-kit.errno.ENOENT])
        self.assertEqual(room, b"".join(block(i) for i in range(40)) + bytes(BLOCK))
        self.assertEqual(future.stages[:40], [0] * 40)
        after = self.store.counters()
        grown = {name: after[name] - before[name] for name in after}
        self.assertEqual(grown["store.bounced"], 1)  # of what is absent
        self.assertEqual(grown["store.load_hits"], 40)
        self.assertEqual(grown["store.loaded_bytes"], 40 * BLOCK)

    def test_garbage(self) -> None:
        key = self.ns.key("a")
        for wrong in (b"", b"short", b"x" * 17):
            with self.assertRaises(ValueError):
                self.ns.pin(wrong)
            with self.assertRaises(ValueError):
                self.ns.reserve(wrong)
        for bad in (None, "0123456789abcdef", 1):
            with self.assertRaises(TypeError):
                self.ns.pin(bad)  # type: ignore[arg-type]
        for shard in (-1, 1 << 32):
            with self.assertRaises(ValueError):
                self.ns.pin(key, shard)
        self.refused(kit.errno.EINVAL, lambda: self.ns.pin(key, 5))
        self.refused(kit.errno.EINVAL, lambda: self.ns.reserve(key, BLOCK - 1))
        self.refused(kit.errno.EINVAL, lambda: self.ns.reserve(key, shard=1))
        for one in (cairn.Pin, cairn.Slot):
            with self.assertRaises(TypeError):
                one()
        with self.assertRaises(TypeError):
            self.ns.reserve(key, attr=1)  # type: ignore[arg-type]
        variable = self.store.namespace(model="variable")
        with self.assertRaises(TypeError):
            variable.reserve(key)
        bare = self.open("null(size=64MiB)").namespace(model="test", shard_bytes=BLOCK)
        self.refused(kit.errno.EOPNOTSUPP, lambda: bare.pin(key))
        self.refused(kit.errno.EOPNOTSUPP, lambda: bare.reserve(key))

    def test_a_slot(self) -> None:
        key = self.ns.key("made")
        with self.reserved("made") as slot:
            self.assertFalse(slot.view.readonly)
            slot.view[:] = block(3)
            self.assertFalse(self.ns.contains(key))
            view = slot.view
            self.assertEqual(slot.commit(), 0)
            with self.assertRaises(ValueError):
                view[0] = 1
            with self.assertRaises(ValueError):
                slot.commit()
        data = bytearray(BLOCK)
        self.ns.load([key], [data]).check()
        self.assertEqual(data, block(3))
        self.assertIsNone(self.ns.reserve(key))
        refused = self.reserved("refused")
        self.refused(kit.errno.EOPNOTSUPP, lambda: refused.commit(durability="written"))
        self.assertTrue(refused.closed)
        other = self.store.namespace(model="variable")
        slot2 = other.reserve(other.key("v"), 100, attr=cairn.Attr(depth=1))
        assert slot2 is not None
        with slot2:
            slot2.view[:] = b"v" * 100
            self.assertEqual(slot2.commit(), 0)
        self.assertEqual(bytes(other.pin(other.key("v")) or b""), b"v" * 100)

    def test_what_is_aborted_is_not_there(self) -> None:
        key = self.ns.key("made")
        with self.reserved("made") as slot:
            slot.view[:] = block(1)
            self.refused(kit.errno.EAGAIN, lambda: self.ns.reserve(key))
        self.assertFalse(self.ns.contains(key))
        slot.abort()
        with self.assertRaises(RuntimeError):
            with self.reserved("made") as slot:
                raise RuntimeError
        self.reserved("made")  # dropped: aborted
        gc.collect()
        self.reserved("made").abort()
        self.assertFalse(self.ns.contains(key))

    def test_nobody_writes_after_a_commit(self) -> None:
        slot = self.reserved("made")
        slot.view[:] = block(1)
        left = slot.view[:8]
        with self.assertRaises(BufferError):
            slot.commit()
        self.assertFalse(slot.closed)
        left.release()
        self.assertEqual(slot.commit(), 0)
        # Aborted with a view left: it can be written, and nobody sees it.
        slot = self.reserved("aborted")
        left = slot.view[:8]
        slot.abort()
        self.refused(kit.errno.EAGAIN, lambda: self.ns.reserve(self.ns.key("aborted")))
        left[:] = b"12345678"
        left.release()
        self.reserved("aborted").abort()

    def test_close_with_what_nobody_looks_at(self) -> None:
        keys = self.filled(1)
        pin, slot = self.pinned(keys), self.reserved("made")
        self.store.close()
        self.assertTrue(pin.closed and slot.closed)
        for use in (lambda: bytes(pin), slot.commit, lambda: slot.view):
            with self.assertRaises(ValueError):
                use()
        self.refused(kit.errno.ECANCELED, lambda: self.ns.pin(keys))
        self.refused(kit.errno.ECANCELED, lambda: self.ns.reserve(keys))

    def test_threads(self) -> None:
        keys = self.filled(8)
        wrong: list[object] = []

        def work() -> None:
            for i in range(500):
                at = i % 8
                pin = self.ns.pin(keys[16 * at:16 * at + 16])
                if pin is None:
                    wrong.append(i)
                    return
                with pin as view:
                    if view[:64] != block(at)[:64]:
                        wrong.append(i)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
