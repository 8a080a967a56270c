# SPDX-License-Identifier: Apache-2.0
"""Keys, lookups, holds, and what loads, dumps, removes and clears do."""

import array
import ctypes
import hashlib
import mmap
import struct
import unittest
from typing import Any, Callable

import cairn

import kit
from kit import BLOCK, block


class Keys(kit.Case):
    def test_derivation(self) -> None:
        """As include/cairn/store.h writes it: never the name itself, never two namespaces' same."""
        other = self.store.namespace(model="other", shard_bytes=BLOCK)
        key = self.ns.key(b"name")
        self.assertEqual((type(key), len(key)), (bytes, cairn.KEY_BYTES))
        self.assertNotEqual(key, other.key(b"name"))
        self.assertNotIn(key, (hashlib.sha256(b"name").digest()[:16], b"name"))
        self.assertEqual(key, self.ns.key("name"))
        self.assertEqual(key, self.ns.key(bytearray(b"name")))
        self.assertEqual(key, self.ns.key(memoryview(b"name")))

    def test_names_of_every_length(self) -> None:
        seen = {self.ns.key(b"n" * length) for length in range(1, 600)}
        self.assertEqual(len(seen), 599)
        self.assertEqual(len(self.ns.key(b"n" * 1_000_000)), 16)
        for name in (b"", "", memoryview(b"")):
            with self.assertRaises(ValueError):
                self.ns.key(name)
        for wrong in (None, 1, 1.5, [], ["a"], object()):
            with self.assertRaises(TypeError):
                self.ns.key(wrong)  # type: ignore[arg-type]

    def test_packed(self) -> None:
        names = [b"%d" % i for i in range(100)]
        self.assertEqual(self.ns.keys(names), b"".join(map(self.ns.key, names)))
        self.assertEqual(self.ns.keys(iter(names)), self.ns.keys(tuple(names)))
        self.assertEqual(self.ns.keys([]), b"")
        for wrong in (b"name", "name", 1, None):
            with self.assertRaises(TypeError):
                self.ns.keys(wrong)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            self.ns.keys([b"a", b""])
        with self.assertRaises(ZeroDivisionError):
            self.ns.keys(b"%d" % (1 // n) for n in (1, 0))

    def test_keys_of_every_length(self) -> None:
        for length in range(64):
            key = bytes(length)
            if length == 16:
                self.assertFalse(self.ns.contains(key))
                self.assertFalse(key in self.ns)
                self.assertEqual(self.ns.lookup([key]), [False])
                continue
            for call in (self.ns.contains, lambda k: k in self.ns, lambda k: self.ns.lookup([k]),
                         lambda k: self.ns.load([k], bytearray(BLOCK))):
                with self.assertRaises(ValueError):
                    call(key)
            if length % 16:
                with self.assertRaises(ValueError):
                    self.ns.lookup(key)
            else:
                self.assertEqual(self.ns.lookup(key), [False] * (length // 16))

    def test_forms(self) -> None:
        keys = self.filled(200)
        parts = [keys[i:i + 16] for i in range(0, len(keys), 16)]
        forms: list[Any] = [keys, bytearray(keys), memoryview(keys), parts, tuple(parts),
                            iter(parts), [memoryview(p) for p in parts], array.array("B", keys)]
        for form in forms:
            self.assertEqual(self.ns.lookup(form), [True] * 200)
        for wrong in (None, 1, "0123456789abcdef", [None], [1], ["0123456789abcdef"]):
            with self.assertRaises(TypeError):
                self.ns.lookup(wrong)  # type: ignore[arg-type]


class Lookups(kit.Case):
    def test_each(self) -> None:
        keys = self.filled(5)
        absent = self.ns.key("absent")
        self.assertEqual(self.ns.lookup([keys[:16], absent, keys[16:32]]), [True, False, True])
        self.assertTrue(self.ns.contains(keys[:16]))
        self.assertTrue(keys[:16] in self.ns)
        self.assertFalse(absent in self.ns)
        self.assertEqual(self.ns.lookup([]), [])

    def test_many(self) -> None:
        keys = self.filled(100) + self.ns.key("absent") + self.filled(300)
        self.assertEqual(self.ns.lookup(keys), [True] * 100 + [False] + [True] * 300)
        self.assertEqual(self.ns.lookup_prefix(keys), 100)
        self.assertEqual(self.ns.lookup_prefix([]), 0)

    def test_found(self) -> None:
        keys = self.filled(1) + self.ns.key("absent")
        found, nothing = self.ns.found(keys)
        self.assertIsNone(nothing)
        assert found is not None
        self.assertEqual((found.stage, found.shard_count, found.shard_bytes, found.bytes),
                         ("null", 1, BLOCK, BLOCK))

    def test_holds(self) -> None:
        keys = self.filled(5)
        with self.ns.hold(keys + self.ns.key("absent")) as hold:
            self.assertEqual((hold.count, int(hold), bool(hold)), (5, 5, True))
            self.assertEqual(keys[:16 * hold.count], keys)
        self.assertFalse(hold.release())
        hold = self.ns.hold(keys, seconds=60)
        self.assertTrue(hold.release())
        self.assertFalse(hold.release())
        self.assertFalse(self.ns.hold([self.ns.key("absent")]))
        short = self.ns.hold(keys, 0.01)
        self.assertTrue(kit.within(5, lambda: self.store.counters()["store.holds_expired"] > 0
                                   if "store.holds_expired" in self.store.counters() else True))
        del short

    def test_hold_keeps(self) -> None:
        store = self.open("null(size=256KiB)")
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        keys = ns.keys(["a", "b"])
        ns.dump(keys, block(1) * 2).check()
        with ns.hold(keys) as hold:
            self.assertEqual(hold.count, 2)
            for i in range(200):
                ns.dump([ns.key(f"more {i}")], block(i)).result()
            self.assertEqual(ns.load_sync(keys, bytearray(2 * BLOCK)), [0, 0])


class Moving(kit.Case):
    spec = "posix(path={folder}/kv, size=256MiB)"

    def test_round_trip(self) -> None:
        keys = self.filled(8)
        out = [bytearray(BLOCK) for _ in range(8)]
        self.assertEqual(self.ns.load(keys, out).result(), [0] * 8)
        self.assertEqual([bytes(o) for o in out], [block(i) for i in range(8)])
        out = [bytearray(BLOCK) for _ in range(8)]
        self.assertEqual(self.ns.load_sync(keys, out), [0] * 8)
        self.assertEqual([bytes(o) for o in out], [block(i) for i in range(8)])

    def test_dumped_again(self) -> None:
        keys = self.filled(2)
        self.assertEqual(self.ns.dump_sync(keys, [block(7), block(8)]), [cairn.PRESENT] * 2)
        out = bytearray(BLOCK)
        self.ns.load(keys[:16], out).check()
        self.assertEqual(out, block(0))

    def test_absent(self) -> None:
        keys = self.filled(1) + self.ns.key("absent")
        future = self.ns.load(keys, bytearray(2 * BLOCK))
        self.assertEqual(future.result(), [0, -kit.errno.ENOENT])
        self.assertEqual((future.ok, future.failed, len(future)), (1, 1, 2))
        self.assertIn("items[1]", str(self.refused(kit.errno.ENOENT, future.check)))

    def test_one_buffer_is_cut(self) -> None:
        keys = self.filled(4)
        out = bytearray(4 * BLOCK)
        self.ns.load(keys, out).check()
        self.assertEqual(out, b"".join(block(i) for i in range(4)))
        for length in (0, 1, 4 * BLOCK - 1):
            with self.assertRaises(ValueError):
                self.ns.load(keys, bytearray(length))

    def test_offset(self) -> None:
        keys = self.filled(1)
        out = bytearray(100)
        self.ns.load(keys, out, offset=1000).check()
        self.assertEqual(out, block(0)[1000:1100])
        with self.assertRaises(ValueError):
            self.ns.load(keys, out, offset=BLOCK - 99)
        with self.assertRaises(ValueError):
            self.ns.load(keys, out, offset=-1)

    def test_durability(self) -> None:
        for level in ("memory", "written", "durable"):
            future = self.ns.dump([self.ns.key(level)], [block(1)],
                                  durability=level)  # type: ignore[arg-type]
            future.check()
            self.assertIn(future.reached[0], ("written", "durable"))
        self.assertEqual(future.reached, ["durable"])
        self.assertEqual(self.ns.remove([self.ns.key("written")], durability="durable").result(),
                         [0])
        for wrong in ("", "Durable", 1, b"durable"):
            with self.assertRaises(ValueError):
                self.ns.dump([self.ns.key("x")], [block(1)],
                             durability=wrong)  # type: ignore[arg-type]

    def test_durability_that_cannot_be_had(self) -> None:
        store = self.open("null")
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        for call in (ns.dump, ns.dump_sync):
            self.refused(kit.errno.EOPNOTSUPP,
                         lambda: call([ns.key("x")], [block(1)], durability="durable"))

    def test_remove(self) -> None:
        keys = self.filled(4)
        self.assertEqual(self.ns.remove(keys[:32]).result(), [0, 0])
        self.assertEqual(self.ns.remove_sync(keys[:48]), [-kit.errno.ENOENT] * 2 + [0])
        self.assertEqual(self.ns.lookup(keys), [False] * 3 + [True])
        self.assertEqual(self.ns.remove([]).result(), [])

    def test_prefetch(self) -> None:
        keys = self.filled(1) + self.ns.key("absent")
        self.assertEqual(self.ns.prefetch(keys).result(), [0, -kit.errno.ENOENT])

    def test_clear(self) -> None:
        keys = self.filled(3)
        self.ns.clear()
        self.assertEqual(self.ns.lookup_prefix(keys), 0)
        self.filled(3)
        self.ns.clear(durability="durable")
        self.assertEqual(self.ns.lookup_prefix(keys), 0)

    def test_attributes(self) -> None:
        keys = self.ns.keys(["a", "b"])
        attr = cairn.Attr(parent=self.ns.key("root"), depth=3, priority=9, ttl=60.0, cost=0.5)
        self.ns.dump(keys, block(0) * 2, attrs=[attr, None]).check()
        self.ns.dump([self.ns.key("c")], block(0), attrs=attr, chain=True).check()
        for wrong in ([attr], [1, 2], (attr, 5), [None], 7, cairn.Attr(priority=101),
                      cairn.Attr(parent=b"short"), cairn.Attr(depth=-1), cairn.Attr(ttl=-1)):
            with self.assertRaises((TypeError, ValueError)):
                self.ns.dump(keys, block(0) * 2, attrs=wrong)  # type: ignore[arg-type]

    def test_nothing(self) -> None:
        self.assertEqual(self.ns.load([], []).result(), [])
        self.assertEqual(self.ns.dump(b"", []).result(1), [])
        self.assertEqual(self.ns.dump_sync([], []), [])
        self.assertEqual(len(self.ns.remove([])), 0)

    def test_flags(self) -> None:
        keys = self.filled(2)
        out = bytearray(2 * BLOCK)
        for flags in ({"detach": True}, {"urgent": True}, {"chain": True}, {"deadline": 5},
                      {"deadline": float("inf")}, {"context": "x"}):
            future = self.ns.load(keys, out, **flags)
            future.check()
            self.assertEqual(future.context, flags.get("context"))
        self.assertEqual(self.ns.load_sync(keys, out, detach=True, urgent=True), [0, 0])


class Shards(kit.Case):
    shard_count = 3

    def test_shards(self) -> None:
        key = self.ns.key("a")
        future = self.ns.dump([key] * 2, [block(0), block(1)], shards=[0, 1])
        self.assertEqual(future.result(), [0, 0])
        self.assertFalse(self.ns.contains(key))
        self.ns.dump([key], [block(2)], shards=2).check()
        self.assertTrue(self.ns.contains(key))
        out = bytearray(3 * BLOCK)
        self.ns.load([key] * 3, out, shards=(2, 1, 0)).check()
        self.assertEqual(out, block(2) + block(1) + block(0))

    def test_wrong_ones(self) -> None:
        key = self.ns.key("a")
        for shards in (3, -1, 1 << 40, [0], [0, 3], [0, -1]):
            with self.assertRaises(ValueError):
                self.ns.load([key] * 2, bytearray(2 * BLOCK), shards=shards)
        for wrong in ("ab", 1.5, object(), [0, None]):
            with self.assertRaises(TypeError):
                self.ns.load([key] * 2, bytearray(2 * BLOCK),
                             shards=wrong)  # type: ignore[arg-type]

    def test_wrong_lengths(self) -> None:
        key = self.ns.key("a")
        for length in (0, 1, BLOCK - 1, BLOCK + 1):
            with self.assertRaises(ValueError):
                self.ns.dump([key], [bytes(length)])
        for length in (0, BLOCK + 1):
            with self.assertRaises(ValueError):
                self.ns.load([key], [bytearray(length)])


class Variable(kit.Case):
    shard_bytes = 0

    def test_each_as_long_as_it_is(self) -> None:
        self.assertEqual((self.ns.shard_count, self.ns.shard_bytes), (0, 0))
        keys = self.ns.keys(["a", "b"])
        self.ns.dump(keys, [block(0, 100), block(1, 70000)]).check()
        first, second = self.ns.found(keys)
        assert first is not None and second is not None
        self.assertEqual((first.bytes, second.bytes), (100, 70000))
        out = [bytearray(first.bytes), bytearray(second.bytes)]
        self.ns.load(keys, out).check()
        self.assertEqual([bytes(o) for o in out], [block(0, 100), block(1, 70000)])

    def test_several_shards(self) -> None:
        key = self.ns.key("a")
        self.ns.dump([key] * 3, [block(0, 512), block(1, 512), block(2, 100)], shards=[0, 1, 2],
                     shard_count=3, shard_bytes=512).check()
        found, = self.ns.found([key])
        assert found is not None
        self.assertEqual((found.shard_count, found.shard_bytes, found.last_bytes, found.bytes),
                         (3, 512, 100, 1124))

    def test_wrong_ones(self) -> None:
        key = self.ns.key("a")
        for words in ({"shard_count": 2}, {"shard_count": 0}, {"shard_count": 1025},
                      {"shard_bytes": (64 << 20) + 1}, {"shard_count": 2, "shard_bytes": 99},
                      {"shards": 1}):
            with self.assertRaises(ValueError):
                self.ns.dump([key], [block(0, 100)], **words)  # type: ignore[arg-type]


class Buffers(kit.Case):
    def load_into(self, item: Any) -> None:
        keys = self.filled(1)
        self.ns.load(keys, [item]).check()

    def test_kinds(self) -> None:
        room = mmap.mmap(-1, BLOCK)
        numbers = array.array("q", bytes(BLOCK))
        text = (ctypes.c_char * BLOCK)()
        view = memoryview(bytearray(BLOCK)).cast("I", (4, BLOCK // 16))
        for item in (room, numbers, text, view):
            self.load_into(item)
            self.assertEqual(bytes(memoryview(item).cast("B")), block(0))
        room.close()

    def test_addresses(self) -> None:
        text = (ctypes.c_char * BLOCK)()
        self.load_into((ctypes.addressof(text), BLOCK))
        self.assertEqual(text.raw, block(0))
        self.ns.load(self.ns.keys(["block 0"]), (ctypes.addressof(text), BLOCK)).check()
        for wrong in ((0, BLOCK), (-1, BLOCK), (1 << 64, BLOCK), (4096, -1), (4096, 1 << 64),
                      ((1 << 64) - 1, BLOCK), (4096, 0)):
            with self.assertRaises(ValueError):
                self.load_into(wrong)

    def test_segments(self) -> None:
        first, second = bytearray(1000), (ctypes.c_char * (BLOCK - 1000))()
        for form in (list, tuple):
            self.load_into(form([first, bytearray(0), (ctypes.addressof(second), BLOCK - 1000)]))
            self.assertEqual(bytes(first) + second.raw, block(0))
        pieces = [bytearray(16) for _ in range(BLOCK // 16)]
        self.load_into(pieces)
        self.assertEqual(b"".join(pieces), block(0))
        with self.assertRaises(ValueError):
            self.load_into([])
        with self.assertRaises(TypeError):
            self.load_into([[first], second])

    def test_read_only(self) -> None:
        for item in (bytes(BLOCK), memoryview(bytes(BLOCK)),
                     memoryview(bytearray(BLOCK)).toreadonly(), [bytearray(BLOCK - 1), b"x"]):
            with self.assertRaisesRegex(TypeError, r"items\[0\]"):
                self.load_into(item)

    def test_not_contiguous(self) -> None:
        with self.assertRaises(TypeError):
            self.load_into(memoryview(bytearray(2 * BLOCK))[::2])

    def test_released_early(self) -> None:
        view = memoryview(bytearray(BLOCK))
        view.release()
        with self.assertRaisesRegex(ValueError, r"items\[0\]"):
            self.load_into(view)

    def test_view_that_outlives_its_context_manager(self) -> None:
        store = self.open(kit.SLOW)
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        room = bytearray(block(5))
        with memoryview(room) as view:
            part = view[:]
            future = ns.dump([ns.key("a")], [part])
            with self.assertRaises(BufferError):
                part.release()  # I/O reads from it
        with self.assertRaises(BufferError):
            room.extend(b"more")
        future.check()
        part.release()
        room.extend(b"more")
        self.assertEqual(ns.load_sync([ns.key("a")], out := bytearray(BLOCK)), [0])
        self.assertEqual(out, block(5))

    def test_garbage(self) -> None:
        keys = self.filled(2)
        ns: Any = self.ns
        room = bytearray(2 * BLOCK)
        garbage: list[Any] = [
            None, 1, "ab", [None, None], [1, 2], [b"", "x"], {}, [object()] * 2,
            [bytearray(BLOCK)], [bytearray(BLOCK)] * 3, [(1, 2, 3)] * 2, [("a", "b")] * 2,
            lambda: 0]
        for items in garbage:
            for call in (ns.load, ns.load_sync, ns.dump, ns.dump_sync):
                with self.assertRaises((TypeError, ValueError)):
                    call(keys, items)
        calls: list[Callable[[], object]] = [
            lambda: ns.load(), lambda: ns.load(keys), lambda: ns.load(keys, room, 0),
            lambda: ns.load(keys, room, keys=keys), lambda: ns.load(keys, room, nothing=1),
            lambda: ns.load(keys, room, queue=1), lambda: ns.load(keys, room, deadline="x"),
            lambda: ns.load(keys, room, offset="x"), lambda: ns.hold(),
            lambda: ns.remove(keys, durability=1)]
        for refused in calls:
            with self.assertRaises((TypeError, ValueError)):
                refused()

    def test_lists_that_change_while_they_are_read(self) -> None:
        class Liar(bytearray):
            pass

        items: list[Any] = []

        class Shrinks:
            def __dlpack_device__(self) -> tuple[int, int]:
                items.clear()
                return (1, 0)

            def __dlpack__(self) -> object:
                return object()

        keys = self.filled(3)
        items += [Shrinks(), bytearray(BLOCK), bytearray(BLOCK)]
        with self.assertRaises((ValueError, IndexError)):
            self.ns.load(keys, items)


# ---- DLPack, from a producer of the test's own --------------------------------------------


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32),
                ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8),
                ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class Versioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32),
                ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
                ("flags", ctypes.c_uint64), ("tensor", Tensor)]


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Array:
    """An array of int16 that gives itself away by DLPack."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, *,
                 versioned: bool = True, device: int = 1, flags: int = 0, major: int = 1,
                 bits: int = 16, offset: int = 0, name: bytes | None = None) -> None:
        self.memory = (ctypes.c_char * (BLOCK * 4))()
        self.device = device
        self.versioned = versioned
        self.asked: list[object] = []
        self.shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self.strides = (ctypes.c_int64 * max(len(shape), 1))(*strides) if strides else None
        tensor = Tensor(ctypes.addressof(self.memory), device, 0, len(shape), 0, bits, 1,
                        self.shape, self.strides, offset)
        self.managed: ctypes.Structure = Managed(tensor)
        if versioned:
            self.managed = Versioned(major, 0, None, None, flags, tensor)
        self.name = name or (b"dltensor_versioned" if versioned else b"dltensor")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)

    def __dlpack__(self, **words: object) -> object:
        self.asked.append(words)
        if words and not self.versioned:
            raise TypeError("no max_version here")
        return new_capsule(ctypes.addressof(self.managed), self.name, None)


class DLPack(kit.Case):
    def load_into(self, item: Any) -> None:
        keys = self.filled(1)
        self.ns.load(keys, [item]).check()

    def test_both_versions(self) -> None:
        for versioned in (True, False):
            item = Array((4, BLOCK // 8), versioned=versioned)
            self.load_into(item)
            self.assertEqual(item.memory.raw[:BLOCK], block(0))
            self.assertEqual(item.asked, [{"max_version": (1, 0)}] + [{}] * (not versioned))

    def test_strides_and_offset(self) -> None:
        item = Array((4, 1, BLOCK // 8), (BLOCK // 8, 77, 1), offset=64)
        self.load_into(item)
        self.assertEqual(item.memory.raw[64:64 + BLOCK], block(0))
        self.load_into(Array((BLOCK,), bits=8, device=3))

    def test_cut(self) -> None:
        item = Array((4, BLOCK // 2))
        self.ns.load(self.filled(4), item).check()
        self.assertEqual(item.memory.raw, b"".join(block(i) for i in range(4)))

    def test_scalar(self) -> None:
        ns = self.store.namespace(model="m", shard_bytes=2)
        item = Array(())
        ns.dump([ns.key("a")], [item]).check()

    def test_refused(self) -> None:
        for item in (Array((BLOCK // 4, 2), (1, BLOCK // 4)), Array((BLOCK // 2,), device=2),
                     Array((BLOCK // 2,), flags=1), Array((BLOCK // 2,), major=2),
                     Array((-1,)), Array((1 << 62, 1 << 62)), Array((3,), bits=4), Array((0,)),
                     Array((BLOCK // 2,), name=b"something")):
            with self.assertRaisesRegex(ValueError, r"items\[0\]"):
                self.load_into(item)
        item = Array((BLOCK // 2,), flags=1)  # its capsule does not keep its memory
        self.ns.dump([self.ns.key("read only")], [item]).check()

    def test_producers_that_raise(self) -> None:
        class Raises:
            def __dlpack_device__(self) -> tuple[int, int]:
                return (1, 0)

            def __dlpack__(self, **words: object) -> object:
                raise BufferError("requires a gradient")

        class Nonsense:
            def __dlpack_device__(self) -> object:
                return "cpu"

            def __dlpack__(self) -> object:
                return 1

        for item in (Raises(), Nonsense()):
            with self.assertRaises(ValueError):
                self.load_into(item)

    def test_capsule_is_kept_until_the_release(self) -> None:
        store = self.open(kit.SLOW)
        ns = store.namespace(model="m", shard_bytes=BLOCK)
        ended: list[int] = []
        destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda capsule: ended.append(1))

        class Owner(Array):
            def __dlpack__(self, **words: object) -> object:
                return new_capsule(ctypes.addressof(self.managed), self.name, destructor)

        item = Owner((BLOCK // 2,))
        future = ns.dump([ns.key("a")], [item])
        self.assertEqual(ended, [])
        future.check()
        self.assertEqual(ended, [1])


class Descriptions(kit.Case):
    def test_every_field_counts(self) -> None:
        words: dict[str, Any] = {
            "model": "a", "revision": "a", "dtype": "a", "layout": "a", "parallel": "a",
            "tenant": "a", "salt": b"a", "world": 2, "format_version": 1,
            "shard_count": 2, "shard_bytes": 512}
        seen = {self.store.namespace().key("k")}
        for name, value in words.items():
            seen.add(self.store.namespace(**{"shard_bytes": 256, name: value}).key("k"))
        seen.add(self.store.namespace(shard_bytes=256, rank=1, world=2).key("k"))
        self.assertEqual(len(seen), len(words) + 2)
        same = self.store.namespace(model=None, salt=None, revision="")
        self.assertEqual(same.key("k"), self.store.namespace().key("k"))

    def test_wrong_ones(self) -> None:
        for words in ({"model": "x\0y"}, {"rank": 1}, {"model": "m" * 2000}, {"rank": -1},
                      {"world": 1 << 40},
                      {"shard_count": 2000, "shard_bytes": 1}, {"shard_bytes": 1 << 40},
                      {"salt": bytes(2000)}):
            with self.assertRaises((ValueError, cairn.CairnError)):
                self.store.namespace(**words)
        for words in ({"model": b"x"}, {"model": 1}, {"salt": "x"}, {"rank": "1"}, {"x": 1}):
            with self.assertRaises(TypeError):
                self.store.namespace(**words)
        with self.assertRaises(TypeError):
            self.store.namespace("model")  # type: ignore[misc]

    def test_types_that_are_not_made_by_hand(self) -> None:
        for kind in (cairn.Namespace, cairn.Future, cairn.Hold, cairn.Queue):
            with self.assertRaises(TypeError):
                kind()

    def test_outlives_its_store_variable(self) -> None:
        ns = cairn.Store("null").namespace(model="m", shard_bytes=BLOCK)
        ns.dump([ns.key("a")], block(0)).check()
        ns.store.close()

    def test_alignment_of_structs(self) -> None:
        """DLPack's structs here are those of its header."""
        self.assertEqual((ctypes.sizeof(Managed), ctypes.sizeof(Versioned), struct.calcsize("P")),
                         (64, 80, 8))


if __name__ == "__main__":
    unittest.main()
