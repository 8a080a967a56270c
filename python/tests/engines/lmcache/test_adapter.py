# SPDX-License-Identifier: Apache-2.0
"""LMCache's native_plugin adapter over our plugin, called as its controllers call it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (
    KIB,
    MIB,
    PIPELINES,
    Adapter,
    Memory,
    content,
    damage,
    files_of,
    key,
    plugin_spec,
    spec,
)

SIZE = 256 * KIB
COUNT = 8


class Case(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name
        self.memory = Memory(256 * MIB)

    def open(self, tier: str, params: dict | None = None, **more: object) -> Adapter:
        adapter = Adapter(spec(PIPELINES[tier].format(path=self.path), params, **more))
        self.addCleanup(adapter.close)
        return adapter

    def fill(self, adapter: Adapter, count: int = COUNT, size: int = SIZE) -> list:
        keys = [key(i) for i in range(count)]
        objects = [self.memory.object(size, content(i, size)) for i in range(count)]
        self.assertTrue(adapter.store(keys, objects))
        return keys

    def check(self, adapter: Adapter, keys: list, wanted: list[bool], size: int = SIZE) -> None:
        """Loads `keys`, numbered from 0: which come, and that those are whole."""
        objects = [self.memory.object(size) for _ in keys]
        self.assertEqual(adapter.load(keys, objects), wanted)
        for i, (made, there) in enumerate(zip(objects, wanted, strict=True)):
            if there:
                self.assertEqual(self.memory.bytes_of(made), content(i, size), f"block {i}")
        for made in objects:
            made.ref_count_down()


    def both(self, body) -> None:
        for tier in PIPELINES:
            with self.subTest(tier), tempfile.TemporaryDirectory() as folder:
                self.path = folder
                body(tier)


class Blocks(Case):
    def test_store_lookup_load(self) -> None:
        def body(tier: str) -> None:
            adapter = self.open(tier)
            keys = self.fill(adapter)
            missing = key(1000)
            self.assertEqual(adapter.lookup([*keys, missing]), [True] * COUNT + [False])
            self.check(adapter, [*keys, missing], [True] * COUNT + [False])
            self.assertTrue(adapter.store(keys, [self.memory.object(SIZE) for _ in keys]))
            self.check(adapter, keys, [True] * COUNT)  # what is there stays
            adapter.close()

        self.both(body)

    def test_memory_that_is_told(self) -> None:
        """By the type `plugin`: registered, and reads come straight to it."""
        for tier, straight in (("flash", True), ("posix", False), ("cache", None)):
            with self.subTest(tier), tempfile.TemporaryDirectory() as folder:
                made = plugin_spec(PIPELINES[tier].format(path=folder))
                adapter = Adapter(made, self.memory)
                self.assertEqual(type(adapter.it).__name__, "CairnL2Adapter")
                self.assertEqual(adapter.it._client._registered.closed, False)
                keys = self.fill(adapter)
                self.check(adapter, keys, [True] * len(keys))
                counters = adapter.it._client.counters()
                if straight:
                    self.assertGreater(counters["flash.straight_bytes"], 0)
                adapter.delete(keys[:1])
                self.assertEqual(adapter.lookup(keys[:2]), [False, True])
                adapter.close()
                adapter = Adapter(made)  # LMCache does not say where its memory is
                self.assertIsNone(adapter.it._client._registered)
                self.check(adapter, keys, [False] + [True] * (len(keys) - 1))
                adapter.close()

    def test_nothing_asked(self) -> None:
        adapter = self.open("posix")
        self.assertTrue(adapter.store([], []))
        self.assertEqual(adapter.lookup([]), [])
        self.assertEqual(adapter.load([], []), [])

    def test_other_keys_are_misses(self) -> None:
        adapter = self.open("flash")
        self.fill(adapter, 1)
        others = [
            key(0, model="org/other"),
            key(0, rank=1, world=2),
            key(0, rank=0, world=2),
            key(0, group=1),
            key(0, salt="tenant"),
            key(1),
        ]
        self.assertEqual(adapter.lookup([*others, key(0)]), [False] * 6 + [True])
        self.check(adapter, others, [False] * 6)

    def test_other_descriptions_are_misses(self) -> None:
        adapter = self.open("posix")
        self.fill(adapter, 1)
        adapter.close()
        for params in ({"dtype": "fp8"}, {"revision": "2"}, {"layout": "x"}, {"tenant": "t"}):
            other = self.open("posix", params)
            self.assertEqual(other.lookup([key(0)]), [False], params)
            other.close()
        self.assertEqual(self.open("posix").lookup([key(0)]), [True])

    def test_sizes(self) -> None:
        def body(tier: str) -> None:
            adapter = self.open(tier)
            self.fill(adapter, 2)
            # Another size is a miss, and stored takes the place.
            self.check(adapter, [key(0)], [False], SIZE // 2)
            self.check(adapter, [key(0)], [False], SIZE * 2)
            half = self.memory.object(SIZE // 2, content(0, SIZE // 2))
            self.assertTrue(adapter.store([key(0)], [half]))
            self.check(adapter, [key(0)], [True], SIZE // 2)
            self.check(adapter, [key(0), key(1)], [False, True])
            # Of several sizes in one batch each goes its way.
            sizes = [4096, 1, 70001, 4096, SIZE]
            keys = [key(100 + i) for i in range(len(sizes))]
            made = [self.memory.object(n, content(i, n)) for i, n in enumerate(sizes)]
            self.assertTrue(adapter.store(keys, made))
            loaded = [self.memory.object(n) for n in sizes]
            self.assertEqual(adapter.load(keys, loaded), [True] * len(sizes))
            for i, n in enumerate(sizes):
                self.assertEqual(self.memory.bytes_of(loaded[i]), content(i, n))
            adapter.close()

        self.both(body)

    def test_large_chunks(self) -> None:
        """Above 16 MiB a chunk is several shards; damage to one of them is a miss of the whole."""

        def body(tier: str) -> None:
            size = 37 * MIB + 4321
            memory = Memory(160 * MIB)
            made = [memory.object(size, content(i, size)) for i in range(2)]
            # A shard fits into a region, which a file of 4 GiB and more has large enough.
            pipeline = PIPELINES[tier].replace("256MiB)", "512MiB, region=32MiB)")
            text = spec(pipeline.format(path=self.path))
            adapter = Adapter(text)
            self.assertTrue(adapter.store([key(0), key(1)], made))
            adapter.close()
            adapter = Adapter(text)
            keys = [key(0), key(1), key(2)]
            self.assertEqual(adapter.lookup(keys), [True, True, False])
            for i, one in enumerate(made):
                ctypes.memset(one.data_ptr, 0, size)
                self.assertEqual(adapter.load([keys[i]], [one]), [True])
                self.assertEqual(memory.bytes_of(one), content(i, size))
            adapter.close()
            piece = content(1, size)[20 * MIB : 20 * MIB + 4096]
            self.assertGreater(damage(f"{self.path}/kv", piece), 0)
            adapter = Adapter(text)
            self.assertEqual(adapter.load(keys[:2], made), [True, False])
            self.assertEqual(memory.bytes_of(made[0]), content(0, size))
            self.assertEqual(adapter.lookup(keys[:2]), [True, False])
            ctypes.memmove(made[1].data_ptr, content(1, size), size)
            self.assertTrue(adapter.store([keys[1]], [made[1]]))
            ctypes.memset(made[1].data_ptr, 0, size)
            self.assertEqual(adapter.load([keys[1]], [made[1]]), [True])
            self.assertEqual(memory.bytes_of(made[1]), content(1, size))
            adapter.close()

        self.both(body)

    def test_delete(self) -> None:
        def body(tier: str) -> None:
            adapter = self.open(tier)
            keys = self.fill(adapter)
            self.assertEqual(adapter.it.get_usage().total_bytes_used, COUNT * SIZE)
            adapter.delete([*keys[:3], key(1000)])
            self.assertEqual(adapter.lookup(keys), [False] * 3 + [True] * (COUNT - 3))
            self.assertEqual(adapter.it.get_usage().total_bytes_used, (COUNT - 3) * SIZE)
            # What the store itself let go of leaves LMCache's accounts when LMCache deletes it.
            plugin = adapter.it._client
            plugin._namespace("org/model").clear()
            adapter.delete(keys)
            self.assertEqual(adapter.it.get_usage().total_bytes_used, 0)
            adapter.close()

        self.both(body)

    def test_restart(self) -> None:
        def body(tier: str) -> None:
            adapter = self.open(tier)
            keys = self.fill(adapter)
            adapter.close()
            adapter = self.open(tier)
            self.assertEqual(adapter.lookup(keys), [True] * COUNT)
            self.check(adapter, keys, [True] * COUNT)
            adapter.close()

        self.both(body)


class Damage(Case):
    def heal(self, tier: str, keys: list, bad: int) -> None:
        adapter = self.open(tier)
        wanted = [i != bad for i in range(len(keys))]
        self.check(adapter, keys, wanted)
        self.assertEqual(adapter.lookup(keys), wanted)
        again = self.memory.object(SIZE, content(bad, SIZE))
        self.assertTrue(adapter.store([keys[bad]], [again]))
        self.assertEqual(adapter.lookup(keys), [True] * len(keys))
        self.check(adapter, keys, [True] * len(keys))
        adapter.close()
        adapter = self.open(tier)
        self.check(adapter, keys, [True] * len(keys))
        adapter.close()

    def damaged(self, tier: str, bad: int) -> list:
        """The keys of a store that is closed, with a byte flipped in one block of it."""
        adapter = self.open(tier)
        keys = self.fill(adapter)
        adapter.close()
        self.assertGreater(damage(f"{self.path}/kv", content(bad, SIZE)[:4096]), 0)
        return keys

    def test_flipped_bytes(self) -> None:
        self.both(lambda tier: self.heal(tier, self.damaged(tier, 3), 3))

    def test_store_at_once_over_damage(self) -> None:
        """Nobody loaded it in between: the store says that it is there, and the load after it does
        not; then it heals."""

        def body(tier: str) -> None:
            keys = self.damaged(tier, 3)
            adapter = self.open(tier)
            made = self.memory.object(SIZE, content(3, SIZE))
            self.assertTrue(adapter.store([keys[3]], [made]))
            adapter.close()
            adapter = self.open(tier)
            objects = [self.memory.object(SIZE)]
            if adapter.load([keys[3]], objects) == [True]:
                self.assertEqual(self.memory.bytes_of(objects[0]), content(3, SIZE))
            self.assertTrue(adapter.store([keys[3]], [made]))
            self.check(adapter, keys, [True] * COUNT)
            adapter.close()

        self.both(body)

    def test_truncated_file(self) -> None:
        adapter = self.open("posix")
        keys = self.fill(adapter)
        adapter.close()
        for name in files_of(f"{self.path}/kv"):
            with open(name, "rb") as file:
                whole = file.read()
            if content(5, SIZE)[:4096] in whole:
                os.truncate(name, len(whole) // 2)
        self.heal("posix", keys, 5)

    def test_truncated_while_open(self) -> None:
        adapter = self.open("posix")
        keys = self.fill(adapter)
        for name in files_of(f"{self.path}/kv"):
            os.truncate(name, 10000)
        self.check(adapter, keys, [False] * COUNT)
        self.fill(adapter)
        self.check(adapter, keys, [True] * COUNT)

    def test_truncated_flash(self) -> None:
        adapter = self.open("flash")
        keys = self.fill(adapter)
        adapter.close()
        with open(f"{self.path}/kv", "rb") as file:
            at = file.read().find(content(6, SIZE)[:4096])
        with open(f"{self.path}/kv", "r+b") as file:
            size = os.path.getsize(file.name)
            os.truncate(file.name, at + SIZE // 2)
            os.truncate(file.name, size)  # zeros, as after a lost write
        adapter = self.open("flash")
        loaded = [self.memory.object(SIZE) for _ in keys]
        for i, there in enumerate(adapter.load(keys, loaded)):
            if there:
                self.assertEqual(self.memory.bytes_of(loaded[i]), content(i, SIZE))
        # Of the others it is said by where they came to lie.
        self.assertEqual(adapter.load(keys[6:7], loaded[6:7]), [False])
        self.fill(adapter)
        self.check(adapter, keys, [True] * COUNT)


class Limits(Case):
    def test_budget(self) -> None:
        """More than size= holds: every store succeeds, the budget stands, what loads is whole."""

        def body(tier: str) -> None:
            pipeline = PIPELINES[tier].replace("256MiB", "16MiB").format(path=self.path)
            adapter = Adapter(spec(pipeline))
            made = self.memory.object(SIZE)
            for i in range(160):
                ctypes.memmove(made.data_ptr, content(i, SIZE), SIZE)
                self.assertTrue(adapter.store([key(i)], [made]))
            stat = adapter.it._client.stat()
            self.assertLessEqual(stat.bytes_used, stat.bytes_limit)
            whole = adapter.lookup([key(i) for i in range(160)])
            self.assertGreater(sum(whole), 10)
            self.assertLess(sum(whole), 100 if tier != "cache" else 160)  # which is of 32 MiB
            for i, there in enumerate(whole):
                loaded = adapter.load([key(i)], [made])
                if loaded == [True]:
                    self.assertEqual(self.memory.bytes_of(made), content(i, SIZE))
                    self.assertTrue(there)
            made.ref_count_down()
            adapter.close()

        self.both(body)

    def test_full_disk(self) -> None:
        folder = f"{self.path}/small"
        os.mkdir(folder)
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
        mounted = subprocess.run(mount, capture_output=True, text=True)
        if mounted.returncode:
            self.skipTest("a small file system takes root: " + mounted.stderr)
        # Lazily: the kernel lets go of a closed ring's files in its own time.
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=True)
        adapter = Adapter(spec(f"posix(path={folder}/kv, direct=no)"))
        self.addCleanup(adapter.close)
        keys = [key(i) for i in range(64)]
        objects = [self.memory.object(SIZE, content(i, SIZE)) for i in range(64)]
        # Where it does not fit, it is a failure of that one, and no more.
        verdicts = [adapter.store([keys[i]], [objects[i]]) for i in range(64)]
        whole = adapter.lookup(keys)
        self.assertIn(True, whole)
        self.assertIn(False, whole)
        self.assertEqual(verdicts[0], True)
        for i in range(64):
            loaded = self.memory.object(SIZE)
            if adapter.load([keys[i]], [loaded]) == [True]:
                self.assertEqual(self.memory.bytes_of(loaded), content(i, SIZE))

    def test_hanging_device(self) -> None:
        """Loads and stores end by their deadline, and nothing comes into a buffer afterwards."""
        tier = PIPELINES["posix"].format(path=self.path)
        hang = 'delay(hang="#1", hang_for=5s) | '
        adapter = Adapter(spec(hang + tier, {"deadline": 0.5, "detach": True}))
        made = self.memory.object(SIZE)
        started = time.monotonic()
        self.assertFalse(adapter.store([key(0)], [made]))
        self.assertEqual(adapter.load([key(0)], [made]), [False])
        self.assertLess(time.monotonic() - started, 60)
        closing = threading.Thread(target=adapter.close)
        closing.start()
        closing.join(90)
        self.assertFalse(closing.is_alive())


class Mistakes(unittest.TestCase):
    def test_configuration(self) -> None:
        for text, what in (
            (spec("nosuch(path=/x)"), "nosuch"),
            (spec("posix(path=/proc/nowhere/at/all)"), "posix"),
            (spec("null", {"durability": "sometimes"}), "durability"),
            (spec("null", {"colour": "red"}), "colour"),
        ):
            with self.assertRaises(Exception) as caught:
                Adapter(text)
            self.assertIn(what, str(caught.exception))


if __name__ == "__main__":
    unittest.main(verbosity=2)
