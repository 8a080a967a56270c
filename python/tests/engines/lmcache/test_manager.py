# SPDX-License-Identifier: Apache-2.0
"""LMCache's whole storage manager, its controllers and threads, over our plugin."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import KIB, MIB, PIPELINES, content, damage, key, layout, manager_config, spec
from lmcache.v1.distributed.api import GroupedObjectKeys, PrefetchTaskSpec
from lmcache.v1.distributed.storage_manager import StorageManager

SIZE = 256 * KIB


class Manager:
    def __init__(self, *specs: str) -> None:
        self.it = StorageManager(manager_config(*specs))

    def close(self) -> None:
        self.it.close()

    def plugin(self):
        (adapter,) = self.it._l2_adapters.values()
        return adapter._client

    def holds(self, count: int) -> bool:
        """Whether so many blocks are in the tier that lasts; how many memory has is its affair."""
        counters = self.plugin().counters()
        (lasting,) = (tier for tier in ("flash.blocks", "posix.blocks") if tier in counters)
        return bool(counters[lasting] == count)

    def idle(self) -> bool:
        status = self.it._store_controller.report_status()
        return status["pending_keys_count"] == 0 and status["in_flight_task_count"] == 0

    def store(self, numbers: list[int]) -> None:
        """Writes blocks into L1, and waits until its store controller has put them into L2."""
        keys = [key(n) for n in numbers]
        objects = self.it.reserve_write(keys, layout(SIZE))
        assert len(objects) == len(keys)
        for n in numbers:
            ctypes.memmove(objects[key(n)].data_ptr, content(n, SIZE), SIZE)
        self.it.finish_write(keys)
        wait(self.idle)

    def fetch(self, numbers: list[int]) -> int:
        """Prefetches a prefix into L1 and compares it: how many leading blocks came."""
        keys = [key(n) for n in numbers]
        row = GroupedObjectKeys(keys=keys, object_group_id=0, layout_desc=layout(SIZE))
        handle = self.it.submit_prefetch_task(PrefetchTaskSpec(key_groups=[row]))
        assert self.it.wait_prefetch_status(handle, 60)
        result = self.it.query_prefetch_status(handle)
        hits = result.hit_cells[0].count_leading_ones()
        assert result.hit_cells[0].popcount() == hits
        if hits:
            with self.it.read_prefetched_results(keys[:hits]) as objects:
                for n, made in zip(numbers, objects, strict=False):
                    data = ctypes.string_at(made.data_ptr, SIZE)
                    assert data == content(n, SIZE), f"block {n} has other bytes"
            self.it.finish_read_prefetched(keys[:hits])
        return hits


def wait(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "not within a minute"
        time.sleep(0.01)


class Whole(unittest.TestCase):
    def each(self, body, **more) -> None:
        for tier in PIPELINES:
            with self.subTest(tier), tempfile.TemporaryDirectory() as folder:
                made = spec(PIPELINES[tier].format(path=folder), **more)
                body(made, f"{folder}/kv")

    def test_store_and_fetch(self) -> None:
        def body(made: str, path: str) -> None:
            manager = Manager(made)
            manager.store(list(range(16)))
            wait(lambda: manager.holds(16))
            self.assertEqual(manager.fetch(list(range(16))), 16)  # from L1
            manager.it.clear()
            self.assertEqual(manager.fetch(list(range(20))), 16)  # from L2
            manager.close()

        self.each(body)

    def test_restart(self) -> None:
        def body(made: str, path: str) -> None:
            manager = Manager(made)
            manager.store(list(range(16)))
            wait(lambda: manager.holds(16))
            manager.close()
            manager = Manager(made)
            self.assertEqual(manager.fetch(list(range(16))), 16)
            manager.close()

        self.each(body)

    def test_damage_heals(self) -> None:
        """A damaged block ends the prefix, is recomputed and stored, and is there again."""

        def body(made: str, path: str) -> None:
            manager = Manager(made)
            manager.store(list(range(8)))
            wait(lambda: manager.holds(8))
            manager.close()
            self.assertGreater(damage(path, content(5, SIZE)[:4096]), 0)
            manager = Manager(made)
            self.assertEqual(manager.fetch(list(range(8))), 5)
            manager.store([5])
            wait(lambda: manager.holds(8))
            manager.it.clear()
            self.assertEqual(manager.fetch(list(range(8))), 8)
            manager.close()
            manager = Manager(made)
            self.assertEqual(manager.fetch(list(range(8))), 8)
            manager.close()

        self.each(body)

    def test_eviction(self) -> None:
        """LMCache's own limit of L2: it deletes through our plugin, and its accounts come down."""

        def body(made: str, path: str) -> None:
            manager = Manager(made)
            limit = int(0.01 * 1024 * MIB)
            for first in range(0, 64, 16):
                manager.store(list(range(first, first + 16)))
                manager.it.clear()
            (adapter,) = manager.it._l2_adapters.values()
            wait(lambda: 0 < adapter.get_usage().total_bytes_used < limit)
            kept = adapter.get_usage().total_bytes_used // SIZE
            wait(lambda: manager.holds(kept))
            manager.close()

        self.each(
            body,
            max_capacity_gb=0.01,
            eviction={
                "eviction_policy": "LRU",
                "trigger_watermark": 0.9,
                "eviction_ratio": 0.3,
            },
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
