# SPDX-License-Identifier: Apache-2.0
"""What the tests of the package share."""

import errno
import gc
import os
import shutil
import tempfile
import time
import unittest
from typing import Any, Callable

import cairn

BLOCK = 4096
# What is done while such a read or write is under way may take a busy machine a good while.
SLOW = "delay(read=500ms, write=500ms) | null(size=64MiB)"
# Its first I/O hangs: results come by the deadline, releases when `delay` gives the I/O up, a tenth
# of a second later. So a hang of it never shows what a device would do to memory after a deadline.
HANGS = 'store(deadline=50ms) | delay(hang="#1", hang_for=2s) | null(size=64MiB)'


def content(number: int, length: int = BLOCK) -> bytes:
    """The bytes of the block of that number."""
    return bytes((number * 31 + i) % 251 for i in range(256)) * (length // 256 + 1)


def block(number: int, length: int = BLOCK) -> bytes:
    return content(number, length)[:length]


def within(seconds: float, what: Callable[[], bool]) -> bool:
    """Whether that comes true in time; the garbage of a test's own is collected meanwhile."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        gc.collect()
        time.sleep(0.002)
    return True


class Case(unittest.TestCase):
    """A store in memory, or at `spec`, and a namespace of it."""

    spec = "null(size=64MiB)"
    shard_count = 1
    shard_bytes = BLOCK

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="cairn-python-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.store = self.open(self.spec)
        self.ns = self.store.namespace(model="test", shard_count=self.shard_count,
                                       shard_bytes=self.shard_bytes)

    def open(self, spec: str) -> cairn.Store:
        store = cairn.Store(spec.replace("{folder}", self.folder))
        self.addCleanup(store.close)
        return store

    def filled(self, count: int) -> bytes:
        """The keys of that many blocks that are there, packed."""
        keys = self.ns.keys(b"block %d" % i for i in range(count))
        self.ns.dump(keys, [block(i) for i in range(count)]).check()
        return keys

    def refused(self, code: int, what: Callable[[], object]) -> cairn.CairnError:
        with self.assertRaises(cairn.CairnError) as caught:
            what()
        self.assertEqual(caught.exception.errno, code, str(caught.exception))
        self.assertEqual(caught.exception.code, -code)
        self.assertNotIn("\n", str(caught.exception))
        self.assertTrue(str(caught.exception))
        return caught.exception


class Spy:
    """A namespace, or what else is called, that notes what is said to it by name."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        self.said: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.whole, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.said.append((name, options))
            return found(*args, **options)

        return call

    def of(self, option: str) -> set[tuple[str, Any]]:
        """(call, value) of each call that was told this option."""
        return {(name, options[option]) for name, options in self.said if option in options}


def rss_kib() -> int:
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


__all__ = ["BLOCK", "Case", "HANGS", "SLOW", "Spy", "block", "errno", "rss_kib", "within"]
