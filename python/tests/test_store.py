# SPDX-License-Identifier: Apache-2.0
"""Stores: opening, closing, figures, errors of text; and the program that the package carries."""

import os
import pickle
import subprocess
import sys
import threading
import time
import unittest
import warnings
from typing import Any

import cairn

import kit


class Opening(kit.Case):
    def test_errors_say_where(self) -> None:
        error = self.refused(kit.errno.EINVAL, lambda: cairn.Store("null(size=64MiB"))
        self.assertEqual((error.line, error.column), (1, 16))
        error = self.refused(kit.errno.EINVAL, lambda: cairn.Store("null |\n  null(siz=1)"))
        self.assertEqual(error.line, 2)
        self.refused(kit.errno.ENOENT,
                     lambda: cairn.Store("posix(path=/nowhere/at/all, size=1GiB)"))

    def test_errors_are_os_errors(self) -> None:
        error = self.refused(kit.errno.EINVAL, lambda: cairn.Store("(("))
        self.assertIsInstance(error, OSError)
        self.assertIs(cairn.Error, cairn.CairnError)
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.errno, again.column, str(again)),
                         (error.errno, error.column, str(error)))

    def test_arguments(self) -> None:
        wrong: list[Any] = [(), (1,), (None,), (b"null",), ("null", "rank")]
        for arguments in wrong:
            with self.assertRaises(TypeError):
                cairn.Store(*arguments)
        with self.assertRaises((TypeError, ValueError)):
            cairn.Store("null\0")
        with self.assertRaises(TypeError):
            cairn.Store("null", nothing=1)  # type: ignore[call-arg]

    def test_rank(self) -> None:
        for rank in (3, "3"):
            with cairn.Store(f"posix(path={self.folder}/r{{rank}}, size=64MiB)", rank=rank):
                self.assertTrue(os.path.isdir(os.path.join(self.folder, "r3")))

    def test_owned(self) -> None:
        spec = f"flash(path={self.folder}/kv, size=64MiB)"
        with cairn.Store(spec):
            self.refused(kit.errno.EBUSY, lambda: cairn.Store(spec))

    def test_compositions(self) -> None:
        cairn.define("ours", "null(size=1MiB)")
        cairn.Store("@ours").close()
        self.refused(kit.errno.EINVAL, lambda: cairn.define("ours", "(("))

    def test_spec(self) -> None:
        self.assertEqual(self.store.spec, self.spec)
        self.assertIn(self.spec, repr(self.store))


class Closing(kit.Case):
    def test_twice(self) -> None:
        self.assertFalse(self.store.closed)
        self.store.close()
        self.store.close(1.0)
        self.assertTrue(self.store.closed)
        self.assertIn("closed", repr(self.store))

    def test_everything_after_it_is_refused(self) -> None:
        keys, queue = self.filled(2), self.store.queue()
        hold = self.ns.hold(keys)
        future = self.ns.load(keys, bytearray(2 * kit.BLOCK))
        future.check()
        self.store.close()
        buffer = bytearray(2 * kit.BLOCK)
        for call in (self.store.stat, self.store.counters, self.store.quiesce, self.store.queue,
                     lambda: self.store.stage_name(0), lambda: self.store.namespace(model="x"),
                     lambda: self.ns.key(b"x"), lambda: self.ns.keys([b"x"]),
                     lambda: self.ns.lookup(keys), lambda: self.ns.found(keys),
                     lambda: self.ns.contains(keys[:16]), lambda: self.ns.lookup_prefix(keys),
                     lambda: self.ns.hold(keys), lambda: self.ns.load(keys, buffer),
                     lambda: self.ns.load_sync(keys, buffer), lambda: self.ns.dump(keys, buffer),
                     lambda: self.ns.dump_sync(keys, buffer), lambda: self.ns.remove(keys),
                     lambda: self.ns.remove_sync(keys), lambda: self.ns.prefetch(keys),
                     self.ns.clear, self.store.__enter__):
            self.refused(kit.errno.ECANCELED, call)
        self.assertFalse(hold.release())
        self.assertEqual(future.result(), [0, 0])
        future.cancel()
        self.assertEqual(queue.drain(), [])

    def test_waits_for_what_runs(self) -> None:
        store = self.open(kit.SLOW)
        ns = store.namespace(model="m", shard_bytes=kit.BLOCK)
        future = ns.dump([ns.key("a")], [kit.block(0)])
        store.close()
        self.assertEqual(future.result(0), [0])

    def test_times_out_and_goes_on(self) -> None:
        store = self.open(kit.SLOW)
        ns = store.namespace(model="m", shard_bytes=kit.BLOCK)
        future = ns.dump([ns.key("a")], [kit.block(0)])
        with self.assertRaises(TimeoutError):
            store.close(0.001)
        self.assertFalse(store.closed)
        self.assertEqual(future.result(), [0])
        self.assertTrue(ns.contains(ns.key("a")))

    def test_from_another_thread(self) -> None:
        store = self.open(kit.SLOW)
        ns = store.namespace(model="m", shard_bytes=kit.BLOCK)
        answers: list[object] = []

        def call() -> None:
            answers.append(ns.dump_sync([ns.key("a")], [kit.block(0)]))

        thread = threading.Thread(target=call)
        thread.start()
        self.assertTrue(kit.within(5, lambda: store.stat().tasks_in_flight > 0))
        store.close()
        thread.join()
        self.assertEqual(answers, [[0]])

    def test_left_open_warns(self) -> None:
        store = cairn.Store("null(size=1MiB)")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del store
        self.assertEqual([w.category for w in caught], [ResourceWarning])

    def test_context_manager(self) -> None:
        with self.assertRaises(KeyError):
            with cairn.Store("null") as store:
                raise KeyError
        self.assertTrue(store.closed)


class Figures(kit.Case):
    def test_stat(self) -> None:
        self.filled(3)
        stat = self.store.stat()
        self.assertIsInstance(stat, cairn.Stat)
        self.assertEqual(stat.blocks, 3)
        self.assertGreaterEqual(stat.bytes_used, 3 * kit.BLOCK)
        self.assertEqual(stat.bytes_limit, 64 << 20)
        self.assertEqual(stat.deadline, 30.0)
        self.assertIn(stat.engine, ("uring", "aio", "psync"))
        self.assertEqual(len(stat.uuid), 16)
        self.assertGreaterEqual(stat.reactors, 1)

    def test_stat_counts_each_tier(self) -> None:
        """Blocks as bytes: what each tier keeps, copies among it."""
        for above, tiers in (("", 1), ("cache(size=16MiB) | ", 2)):
            self.store = self.open(f"{above}flash(path={{folder}}/{tiers}, size=64MiB)")
            self.ns = self.store.namespace(model="test", shard_count=1, shard_bytes=kit.BLOCK)
            blocks = [kit.block(i) for i in range(3)]
            keys = self.ns.keys(b"%d" % i for i in range(3))
            self.ns.dump(keys, blocks, durability="written").check()
            self.assertEqual(self.store.stat().blocks, 3 * tiers)

    def test_counters(self) -> None:
        before = self.store.counters()
        keys = self.filled(3)
        self.ns.load_sync(keys, bytearray(3 * kit.BLOCK))
        after = self.store.counters()
        self.assertEqual(before.keys(), after.keys())
        self.assertEqual(after["store.tasks"] - before["store.tasks"], 2)
        self.assertTrue(all(isinstance(v, int) for v in after.values()))

    def test_stage_names(self) -> None:
        self.assertEqual(self.store.stage_name(0), "null")
        self.assertIsNone(self.store.stage_name(7))
        for index in (-1, 1 << 40):
            with self.assertRaises(ValueError):
                self.store.stage_name(index)

    def test_quiesce(self) -> None:
        self.assertTrue(self.store.quiesce())
        self.assertTrue(self.store.quiesce(timeout=0.0))

    def test_times(self) -> None:
        for timeout in (-1, float("nan")):
            with self.assertRaises(ValueError):
                self.store.quiesce(timeout)
        with self.assertRaises(TypeError):
            self.store.quiesce("1")  # type: ignore[arg-type]


class Exits(unittest.TestCase):
    """Interpreters that end in the middle."""

    def run_python(self, text: str) -> str:
        ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True,
                               timeout=60, check=False)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        return ended.stdout

    def test_store_left_open(self) -> None:
        self.run_python("import cairn; store = cairn.Store('null')")

    def test_tasks_in_flight(self) -> None:
        started = time.monotonic()
        self.run_python(
            "import cairn\n"
            "store = cairn.Store('delay(read=30s, write=30s) | null')\n"
            "ns = store.namespace(model='m', shard_bytes=4096)\n"
            "kept = ns.dump(ns.keys(['a']), bytes(4096))\n"
            "ns.load(ns.keys(['b']), bytearray(4096))\n"
            "queue = store.queue()\n"
            "ns.load(ns.keys(['b']), bytearray(4096), queue=queue)\n")
        self.assertLess(time.monotonic() - started, 25)

    def test_thread_in_a_wait(self) -> None:
        self.run_python(
            "import cairn, threading\n"
            "store = cairn.Store('delay(write=30s) | null')\n"
            "ns = store.namespace(model='m', shard_bytes=4096)\n"
            "future = ns.dump(ns.keys(['a']), bytes(4096))\n"
            "threading.Thread(target=future.result, daemon=True).start()\n"
            "threading.Thread(target=lambda: ns.dump_sync(ns.keys(['b']), bytes(4096)),\n"
            "                 daemon=True).start()\n")

    def test_what_was_dumped_is_there_again(self) -> None:
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            spec = f"flash(path={folder}/kv, size=64MiB)"
            self.run_python(
                "import cairn\n"
                f"store = cairn.Store({spec!r})\n"
                "ns = store.namespace(model='m', shard_bytes=4096)\n"
                "ns.dump(ns.keys(['a']), bytes(4096)).check()\n")
            with cairn.Store(spec) as store:
                ns = store.namespace(model="m", shard_bytes=4096)
                self.assertTrue(ns.contains(ns.key("a")))

    def test_module_is_loaded_once_more(self) -> None:
        self.run_python("import sys, cairn\n"
                        "del sys.modules['cairn._cairn'], sys.modules['cairn']\n"
                        "import cairn\n"
                        "with cairn.Store('null') as s: s.stat()\n")


class Program(unittest.TestCase):
    def test_runs(self) -> None:
        ended = subprocess.run([sys.executable, "-m", "cairn", "--version"], capture_output=True,
                               text=True, timeout=60, check=False)
        self.assertEqual((ended.returncode, ended.stdout.strip()), (0, f"cairn {cairn.version}"))
        self.assertEqual(cairn.__version__, cairn.version)

    def test_the_page_about_it(self) -> None:
        """docs/python.md's examples run, one after the other."""
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, "..", "..", "docs", "python.md"), encoding="utf-8") as f:
            codes = [part.split("```")[0] for part in f.read().split("```python\n")[1:]]
        self.assertEqual(len(codes), 2)
        names: dict[str, object] = {}
        for code in codes:
            code = code.replace("name=example", f"name=example{os.getpid()}")  # others run it, too
            exec(compile(code, "docs/python.md", "exec"), names)
        self.assertIn("pin", names)

    def test_status(self) -> None:
        ended = subprocess.run([sys.executable, "-m", "cairn", "nothing-like-this"],
                               capture_output=True, timeout=60, check=False)
        self.assertNotEqual(ended.returncode, 0)


if __name__ == "__main__":
    unittest.main()
