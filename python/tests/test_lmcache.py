# SPDX-License-Identifier: Apache-2.0
"""cairn.lmcache by the protocol of LMCache's native connector, without LMCache."""

from __future__ import annotations

import ctypes
import os
import select
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

from kit import Spy

from cairn.lmcache import CairnPlugin

SIZE = 10000
MIB = 1 << 20


def key(number: int, rank: str = "01000100", group: str = "0", salt: str = "") -> str:
    return f"org/model@{rank}@{group}@{number:064x}" + (f"@{salt}" if salt else "")


def content(number: int, size: int = SIZE) -> bytearray:
    return bytearray((b"%032d" % number * (size // 32 + 1))[:size])


class Case(unittest.TestCase):
    pipeline = "null(size=256MiB)"

    def open(self, pipeline: str | None = None, **params: object) -> CairnPlugin:
        plugin = CairnPlugin(pipeline or self.pipeline, **params)  # type: ignore[arg-type]
        self.addCleanup(plugin.close)
        return plugin

    def wait(self, plugin: CairnPlugin, future: int, seconds: float = 60) -> tuple[bool, str, Any]:
        """The completion of `future`, which must be the next one."""
        poller = select.poll()
        poller.register(plugin.event_fd(), select.POLLIN)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if poller.poll(1000):
                done = plugin.drain_completions()
                if done:
                    self.assertEqual([one[0] for one in done], [future])
                    return done[0][1:]
        raise AssertionError("no completion")

    def put(
        self, plugin: CairnPlugin, names: list[str], data: list[bytearray]
    ) -> tuple[bool, str, Any]:
        return self.wait(plugin, plugin.submit_batch_set(names, [memoryview(d) for d in data]))

    def get(self, plugin: CairnPlugin, names: list[str], data: list[bytearray]) -> list[bool]:
        ok, error, answers = self.wait(
            plugin, plugin.submit_batch_get(names, [memoryview(d) for d in data])
        )
        self.assertEqual((ok, error), (True, ""))
        return list(answers)

    def exists(self, plugin: CairnPlugin, names: list[str]) -> list[bool]:
        ok, error, answers = self.wait(plugin, plugin.submit_batch_exists(names))
        self.assertEqual((ok, error), (True, ""))
        return list(answers)

    def delete(self, plugin: CairnPlugin, names: list[str]) -> list[bool]:
        return list(self.wait(plugin, plugin.submit_batch_delete(names))[2])


class Protocol(Case):
    def test_answers_by_key(self) -> None:
        plugin = self.open()
        names = [key(i) for i in range(5)]
        self.assertEqual(self.put(plugin, names, [content(i) for i in range(5)]),
                         (True, "", [True] * 5))  # fmt: skip
        self.assertEqual(self.exists(plugin, [key(9), *names]), [False] + [True] * 5)
        data = [bytearray(SIZE) for _ in range(6)]
        self.assertEqual(self.get(plugin, [*names[:2], key(9), *names[2:]], data),
                         [True, True, False, True, True, True])  # fmt: skip
        self.assertEqual(data[0], content(0))
        self.assertEqual(data[5], content(4))
        self.assertEqual(self.delete(plugin, [names[1], key(9)]), [True, True])
        self.assertEqual(self.exists(plugin, names), [True, False, True, True, True])

    def test_what_is_there_stays(self) -> None:
        plugin = self.open()
        self.put(plugin, [key(0)], [content(0)])
        self.assertEqual(self.put(plugin, [key(0)], [content(1)]), (True, "", [True]))
        data = bytearray(SIZE)
        self.assertEqual(self.get(plugin, [key(0)], [data]), [True])
        self.assertEqual(data, content(0))

    def test_every_part_of_a_key_counts(self) -> None:
        plugin = self.open()
        self.put(plugin, [key(0)], [content(0)])
        others = [
            key(0, rank="02000200"),
            key(0, group="1"),
            key(0, salt="x"),
            key(1),
            key(0).replace("org/", "other/"),
        ]
        self.assertEqual(self.exists(plugin, [*others, key(0)]), [False] * 5 + [True])
        self.assertEqual(self.get(plugin, others, [bytearray(SIZE) for _ in others]), [False] * 5)

    def test_many_models_in_a_batch(self) -> None:
        plugin = self.open()
        names = [key(i).replace("org/", f"m{i % 3}/") for i in range(10)]
        self.assertEqual(self.put(plugin, names, [content(i) for i in range(10)])[2], [True] * 10)
        data = [bytearray(SIZE) for _ in names]
        self.assertEqual(self.get(plugin, names, data), [True] * 10)
        self.assertEqual(data, [content(i) for i in range(10)])
        self.assertEqual(self.delete(plugin, names[:4]), [True] * 4)
        self.assertEqual(self.exists(plugin, names), [False] * 4 + [True] * 6)

    def test_sizes(self) -> None:
        plugin = self.open()
        sizes = [1, SIZE, 4096, SIZE, 17 * MIB]
        names = [key(i) for i in range(5)]
        made = [content(i, n) for i, n in enumerate(sizes)]
        self.assertEqual(self.put(plugin, names, made), (True, "", [True] * 5))
        data = [bytearray(n) for n in sizes]
        self.assertEqual(self.get(plugin, [*names, key(9)], [*data, bytearray(1)]),
                         [True] * 5 + [False])  # fmt: skip
        self.assertEqual(data, made)
        for wrong in (SIZE - 1, SIZE + 1, 2 * SIZE, 17 * MIB):
            self.assertEqual(self.get(plugin, [names[1]], [bytearray(wrong)]), [False], wrong)
        # Another size takes the place.
        self.assertEqual(self.put(plugin, [names[1]], [content(1, 4096)])[0], True)
        self.assertEqual(self.get(plugin, [names[1]], [bytearray(SIZE)]), [False])
        again = bytearray(4096)
        self.assertEqual(self.get(plugin, [names[1]], [again]), [True])
        self.assertEqual(again, content(1, 4096))

    def test_empty_batches(self) -> None:
        plugin = self.open()
        self.assertEqual(self.put(plugin, [], []), (True, "", []))
        self.assertEqual(self.get(plugin, [], []), [])
        self.assertEqual(self.exists(plugin, []), [])
        self.assertEqual(self.delete(plugin, []), [])

    def test_completions_come_once_and_the_descriptor_falls_silent(self) -> None:
        plugin = self.open()
        poller = select.poll()
        poller.register(plugin.event_fd(), select.POLLIN)
        self.assertEqual(poller.poll(0), [])
        futures = [plugin.submit_batch_exists([key(i)]) for i in range(20)]
        self.assertEqual(len(set(futures)), 20)
        self.assertTrue(poller.poll(0))
        self.assertEqual([one[0] for one in plugin.drain_completions()], futures)
        self.assertEqual(plugin.drain_completions(), [])
        self.assertEqual(poller.poll(0), [])

    def test_threads(self) -> None:
        """Submissions from two threads beside a drain in a third, as LMCache has it."""
        plugin = self.open()
        wanted: set[int] = set()
        failures: list[str] = []
        stop = threading.Event()
        seen: list[tuple[Any, ...]] = []

        def submit(first: int) -> None:
            try:
                for i in range(first, first + 200):
                    data = [memoryview(content(i))]
                    wanted.add(plugin.submit_batch_set([key(i)], data))
                    wanted.add(plugin.submit_batch_exists([key(i)]))
            except Exception as error:
                failures.append(repr(error))

        def drain() -> None:
            poller = select.poll()
            poller.register(plugin.event_fd(), select.POLLIN)
            while not stop.is_set():
                if poller.poll(50):
                    seen.extend(plugin.drain_completions())

        drainer = threading.Thread(target=drain)
        drainer.start()
        submitters = [threading.Thread(target=submit, args=(n,)) for n in (0, 1000)]
        for one in submitters:
            one.start()
        for one in submitters:
            one.join()
        end = time.monotonic() + 60
        while len(seen) < len(wanted) and time.monotonic() < end:
            time.sleep(0.01)
        stop.set()
        drainer.join()
        self.assertEqual(failures, [])
        self.assertEqual(sorted(one[0] for one in seen), sorted(wanted))
        self.assertTrue(all(one[1] for one in seen))
        self.assertEqual(self.exists(plugin, [key(i) for i in range(200)]), [True] * 200)

    def test_mistakes_do_not_raise(self) -> None:
        plugin = self.open()
        mistakes: tuple[Callable[[], int], ...] = (
            lambda: plugin.submit_batch_set([key(0)], []),
            lambda: plugin.submit_batch_get([key(0)], [memoryview(bytearray(1))] * 2),
            lambda: plugin.submit_batch_set([key(0)], [None]),  # type: ignore[list-item]
            lambda: plugin.submit_batch_exists([None]),  # type: ignore[list-item]
        )
        for submit in mistakes:
            ok, error, answers = self.wait(plugin, submit())
            self.assertFalse(ok)
            self.assertTrue(error)
            self.assertEqual(answers, [False])

    def test_a_load_into_what_cannot_be_written(self) -> None:
        plugin = self.open()
        self.put(plugin, [key(0)], [content(0)])
        future = plugin.submit_batch_get([key(0)], [memoryview(bytes(SIZE))])
        ok, error, answers = self.wait(plugin, future)
        self.assertEqual((ok, answers), (False, [False]))
        self.assertTrue(error)

    def test_closed(self) -> None:
        plugin = self.open()
        plugin.close()
        plugin.close()
        plugin.submit_batch_exists([key(0)])
        plugin.submit_batch_set([key(0)], [memoryview(content(0))])

    def test_registered(self) -> None:
        """A stand-in for LMCache's memory: gets into it, what cannot be registered, the end."""
        memory = bytearray(4 << 20)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        plugin = self.open()
        self.assertFalse(plugin.register(0, 4096))
        self.assertTrue(plugin.register(address, len(memory)))
        self.assertFalse(plugin.register(address, len(memory)), "it is registered already")
        self.put(plugin, [key(0)], [content(0)])
        view = memoryview(memory)[4096 : 4096 + SIZE]
        ok, error, answers = self.wait(
            plugin, plugin.submit_batch_get([key(0), key(1)], [view, memoryview(memory)[:SIZE]])
        )
        self.assertEqual((ok, error, list(answers)), (True, "", [True, False]))
        self.assertEqual(view, content(0))
        plugin.close()
        self.assertFalse(plugin.register(address, len(memory)))
        self.assertFalse(self.open(detach=True).register(address, len(memory)))

    def test_options(self) -> None:
        """They reach the store; without `detach` I/O may be aimed at LMCache's memory."""
        with tempfile.TemporaryDirectory() as path:
            for detach in (False, True):
                plugin = self.open(f"posix(path={path}/{{rank}}, direct=no)", rank="seven",
                                   durability="written", deadline=20, detach=detach)
                self.assertEqual(os.listdir(path), ["seven"])
                self.put(plugin, [key(0)], [content(0)])
                (name,) = plugin._namespaces
                plugin._namespaces[name] = spy = Spy(plugin._namespaces[name])
                for number in (1 + detach, 3 + detach):
                    before = plugin.counters()["store.bounced"]
                    self.put(plugin, [key(number)], [content(number)])
                    between = plugin.counters()["store.bounced"]
                    self.assertEqual(self.get(plugin, [key(number)], [bytearray(SIZE)]), [True])
                    after = plugin.counters()["store.bounced"]
                    self.assertEqual((between > before, after > between), (detach, detach))
                self.assertEqual(spy.of("durability"), {("dump", "written")})
                self.assertEqual(spy.of("deadline"), {("dump", 20), ("load", 20)})
                plugin.close()

    def test_configuration(self) -> None:
        with self.assertRaises(OSError):
            CairnPlugin("nosuch()")
        with self.assertRaises(TypeError):
            CairnPlugin("null", colour="red")  # type: ignore[call-arg]
        with self.assertRaises(ValueError):
            CairnPlugin("null", durability="now")


class ProtocolOverCache(Protocol):
    """The same where a memory tier is above: on the caller's thread, out of shared memory."""

    def setUp(self) -> None:
        self.pipeline = f"cache(size=64MiB, name=lmcache-{os.getpid()}) | null(size=256MiB)"


class Tiers(Case):
    above = ""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name

    def tiers(self) -> list[str]:
        return [
            f"{self.above}posix(path={self.path}/posix, size=64MiB, direct=no)",
            f"{self.above}flash(path={self.path}/flash, size=64MiB)",
        ]

    def test_reopened(self) -> None:
        for pipeline in self.tiers():
            plugin = self.open(pipeline)
            self.put(plugin, [key(0)], [content(0)])
            plugin.close()
            plugin = self.open(pipeline)
            data = bytearray(SIZE)
            self.assertEqual(self.get(plugin, [key(0), key(1)], [data, bytearray(SIZE)]),
                             [True, False])  # fmt: skip
            self.assertEqual(data, content(0))
            plugin.close()
            for params in ({"dtype": "x"}, {"revision": "x"}, {"layout": "x"}, {"tenant": "x"}):
                plugin = self.open(pipeline, **params)
                self.assertEqual(self.exists(plugin, [key(0)]), [False], params)
                plugin.close()

    def test_damage_heals(self) -> None:
        for pipeline in self.tiers():
            size = 100000
            plugin = self.open(pipeline)
            self.put(plugin, [key(0), key(1)], [content(0, size), content(1, size)])
            plugin.close()
            damaged = 0
            for folder, _, files in os.walk(self.path):
                for name in files:
                    with open(os.path.join(folder, name), "r+b") as file:
                        at = file.read().find(content(1, size)[:4096])
                        if at >= 0:
                            file.seek(at + 50000)
                            file.write(b"!")
                            damaged += 1
            self.assertEqual(damaged, 1)
            plugin = self.open(pipeline)
            names, data = [key(0), key(1)], [bytearray(size), bytearray(size)]
            self.assertEqual(self.get(plugin, names, data), [True, False])
            self.assertEqual(self.exists(plugin, names), [True, False])
            self.assertEqual(self.put(plugin, names, [content(0, size), content(1, size)])[2],
                             [True, True])  # fmt: skip
            self.assertEqual(self.get(plugin, names, data), [True, True])
            self.assertEqual(data[1], content(1, size))
            plugin.close()
            for name in os.listdir(self.path):
                os.rename(f"{self.path}/{name}", f"{self.path}/.gone")
                os.system(f"rm -rf {self.path}/.gone")

    def test_a_store_that_fails(self) -> None:
        """Of a batch some fit and some do not: one verdict, and each key's own truth."""
        plugin = self.open(f'fault(rule="dump:ENOSPC:#2") | posix(path={self.path}/kv)')
        names = [key(i) for i in range(4)]
        ok, error, answers = self.put(plugin, names, [content(i) for i in range(4)])
        self.assertFalse(ok)
        self.assertIn("set: not taken", error)
        self.assertEqual(answers.count(False), 1)
        self.assertEqual(self.exists(plugin, names), answers)

    def test_a_device_that_hangs(self) -> None:
        """Everything ends by the deadline, and the memory is the caller's again."""
        plugin = self.open(
            f'delay(hang="#2", hang_for=3s) | posix(path={self.path}/kv, direct=no)',
            deadline=0.2,
            detach=True,
        )
        self.put(plugin, [key(0)], [content(0)])
        data = bytearray(SIZE)
        self.assertEqual(self.get(plugin, [key(0)], [data]), [False])
        data[:] = b"?" * SIZE
        plugin.close()  # which waits for what hangs
        self.assertEqual(data, b"?" * SIZE)

    def test_a_buffer_is_not_given_back_while_a_device_hangs(self) -> None:
        plugin = self.open(
            f'delay(hang="#2", hang_for=1s) | posix(path={self.path}/kv, direct=no)',
            deadline=0.1,
        )
        self.put(plugin, [key(0)], [content(0)])
        data = bytearray(SIZE)
        self.get(plugin, [key(0)], [data])  # whichever way the race of hang and deadline goes
        data[:] = b"?" * SIZE
        self.assertEqual(self.exists(plugin, [key(0)]), [True])
        plugin.close()
        self.assertEqual(data, b"?" * SIZE)


class TiersBelowCache(Tiers):
    above = "cache(size=16MiB) | "


if __name__ == "__main__":
    unittest.main()
