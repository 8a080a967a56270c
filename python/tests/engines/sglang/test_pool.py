# SPDX-License-Identifier: Apache-2.0
"""SGLang's host pools on the CPU over our back end: bytes compared as bytes."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch
from harness import (
    PAGE,
    PAGES,
    backend_of,
    config_of,
    fill,
    holds,
    indices,
    page_hash,
    part_bytes,
    pool_of,
)
from sglang.srt.mem_cache.hicache_storage import PoolName, PoolTransfer

TIERS = {
    "posix": "posix(path={path}/kv{{rank}}, size=256MiB, direct=no)",
    "flash": "flash(path={path}/kv{{rank}}, size=256MiB)",
    "cache": "cache(size=32MiB) | flash(path={path}/kv{{rank}}, size=256MiB)",
}
NUMBERS = list(range(8))
HASHES = [page_hash(n) for n in NUMBERS]


class Case(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name

    def open(self, pool, tier: str = "posix", **changes):
        pipeline = changes.pop("pipeline", TIERS[tier]).format(path=self.path)
        backend = backend_of(pipeline, pool, **changes)
        self.addCleanup(backend.close)
        return backend

    def store(self, backend, pool) -> None:
        fill(pool, NUMBERS, NUMBERS)
        self.assertEqual(backend.batch_set_v1(HASHES, indices(NUMBERS)), [True] * 8)

    def check(self, backend, pool, wanted: list[bool]) -> None:
        """Loads the pages elsewhere in the pool: which come, and those byte for byte."""
        places = list(range(20, 28))
        fill(pool, places, [1000] * 8)
        self.assertEqual(backend.batch_get_v1(HASHES, indices(places)), wanted)
        same = holds(pool, places, NUMBERS)
        self.assertEqual([s for s, w in zip(same, wanted, strict=True) if w], [True] * sum(wanted))


class Pages(Case):
    def test_every_layout(self) -> None:
        for layout in ("page_first", "page_first_direct", "page_head", "layer_first"):
            for tier in TIERS:
                with self.subTest(layout=layout, tier=tier), tempfile.TemporaryDirectory() as path:
                    self.path = path
                    pool = pool_of(layout)
                    backend = self.open(pool, tier)
                    self.assertEqual(backend.batch_exists(HASHES), 0)
                    self.store(backend, pool)
                    self.assertEqual(backend.batch_exists(HASHES), 8)
                    self.check(backend, pool, [True] * 8)
                    backend.close()

    def test_a_pool_that_is_registered(self) -> None:
        for layout in ("page_first", "layer_first"):
            for tier in TIERS:
                with self.subTest(layout=layout, tier=tier), tempfile.TemporaryDirectory() as path:
                    self.path = path
                    pool = pool_of(layout)
                    backend = self.open(pool, tier, extra={"detach": False})
                    self.assertGreater(len(backend._registered), 0, backend._told)
                    self.store(backend, pool)
                    self.check(backend, pool, [True] * 8)
                    backend.close()

    def test_random_bits(self) -> None:
        """Of which some are no numbers: equal as bytes."""
        pool = pool_of()
        backend = self.open(pool)
        whole = pool.kv_buffer.view(torch.uint8)
        whole.random_(0, 256)
        before = pool.kv_buffer.clone()
        self.assertTrue(torch.isnan(before).any())
        self.assertEqual(backend.batch_set_v1(HASHES, indices(NUMBERS)), [True] * 8)
        whole.zero_()
        self.assertEqual(backend.batch_get_v1(HASHES, indices(NUMBERS)), [True] * 8)
        tokens = 8 * PAGE
        self.assertTrue(
            torch.equal(
                pool.kv_buffer[:, :tokens].view(torch.uint8), before[:, :tokens].view(torch.uint8)
            )
        )

    def test_missing_pages(self) -> None:
        pool = pool_of()
        backend = self.open(pool)
        fill(pool, [0, 1, 3], [0, 1, 3])
        some = [HASHES[0], HASHES[1], HASHES[3]]
        self.assertEqual(backend.batch_set_v1(some, indices([0, 1, 3])), [True] * 3)
        self.assertEqual(backend.batch_exists(HASHES), 2)
        self.assertEqual(backend.batch_exists(HASHES[2:]), 0)
        self.assertTrue(backend.exists(HASHES[3]))
        self.assertFalse(backend.exists(HASHES[2]))
        self.check(backend, pool, [True, True, False, True] + [False] * 4)

    def test_restart(self) -> None:
        for tier in TIERS:
            self.path = self.enterContext(tempfile.TemporaryDirectory())
            pool = pool_of()
            backend = self.open(pool, tier)
            self.store(backend, pool)
            backend.close()
            pool = pool_of()
            backend = self.open(pool, tier)
            self.assertEqual(backend.batch_exists(HASHES), 8)
            self.check(backend, pool, [True] * 8)
            backend.close()

    def test_flipped_bytes_heal(self) -> None:
        pool = pool_of()
        backend = self.open(pool, "flash")
        self.store(backend, pool)
        backend.close()
        with open(f"{self.path}/kv0", "r+b") as file:
            at = file.read().find(part_bytes(2, 1, 4096))
            self.assertGreater(at, 0)
            file.seek(at + 300000)
            file.write(b"\0\1\2\3")
        backend = self.open(pool, "flash")
        self.check(backend, pool, [True, True, False] + [True] * 5)
        self.assertEqual(backend.batch_exists(HASHES), 2)
        self.store(backend, pool)
        self.check(backend, pool, [True] * 8)

    def test_truncated_files(self) -> None:
        """Before the store is opened, and while it is open."""
        for opened in (False, True):
            with self.subTest(opened=opened), tempfile.TemporaryDirectory() as path:
                self.path = path
                pool = pool_of()
                backend = self.open(pool)
                self.store(backend, pool)
                if not opened:
                    backend.close()
                cut = 0
                for folder, _, names in os.walk(path):
                    for name in (os.path.join(folder, name) for name in names):
                        with open(name, "rb") as file:
                            there = part_bytes(2, 0, 4096) in file.read()
                        if there:
                            os.truncate(name, os.path.getsize(name) // 2)
                            cut += 1
                self.assertEqual(cut, 1)
                if not opened:
                    backend = self.open(pool)
                self.check(backend, pool, [True, True, False] + [True] * 5)
                self.assertEqual(backend.batch_exists(HASHES), 2)
                self.store(backend, pool)
                self.check(backend, pool, [True] * 8)
                backend.close()

    def test_truncated_flash(self) -> None:
        """Zeros from the middle of a page on, as after a lost write."""
        pool = pool_of()
        backend = self.open(pool, "flash")
        self.store(backend, pool)
        backend.close()
        path = f"{self.path}/kv0"
        with open(path, "rb") as file:
            at = file.read().find(part_bytes(3, 0, 4096))
        self.assertGreater(at, 0)
        size = os.path.getsize(path)
        os.truncate(path, at + 300000)
        with self.assertRaisesRegex(ValueError, "cut short"):
            self.open(pool, "flash")
        os.truncate(path, size)
        backend = self.open(pool, "flash")
        places = list(range(20, 28))
        there = backend.batch_get_v1(HASHES, indices(places))
        # Of the others it depends on where they came to lie.
        self.assertFalse(there[3])
        same = holds(pool, places, NUMBERS)
        self.assertEqual([s for s, t in zip(same, there, strict=True) if t], [True] * sum(there))
        self.store(backend, pool)
        self.check(backend, pool, [True] * 8)

    def test_a_large_batch(self) -> None:
        pool = pool_of()
        backend = self.open(pool)
        pages = list(range(PAGES))
        names = [page_hash(n) for n in pages]
        fill(pool, pages, pages)
        self.assertEqual(backend.batch_set_v1(names, indices(pages)), [True] * PAGES)
        fill(pool, pages, [7] * PAGES)
        self.assertEqual(backend.batch_get_v1(names, indices(pages)), [True] * PAGES)
        self.assertEqual(holds(pool, pages, pages), [True] * PAGES)


class Identity(Case):
    def test_another_layout_is_a_miss(self) -> None:
        pool = pool_of()
        backend = self.open(pool)
        self.store(backend, pool)
        backend.close()
        pipeline = "posix(path={path}/kv0, size=256MiB, direct=no)"
        for what, other, changes in (
            ("layout", pool_of("page_first_direct"), {}),
            ("dtype", pool_of(dtype=torch.float16), {}),
            ("page size", pool_of(page=32), {}),
            ("head size", pool_of(dim=64), {}),
            ("model", pool, {"model_name": "org/other"}),
            ("rank", pool, {"tp_size": 2, "tp_rank": 0}),
            ("stage", pool, {"pp_size": 2, "pp_rank": 1}),
            ("context rank", pool, {"attn_cp_size": 2, "attn_cp_rank": 1}),
            ("revision", pool, {"extra": {"revision": "2"}}),
            ("tenant", pool, {"extra": {"tenant": "t"}}),
            ("salt", pool, {"extra": {"salt": "s"}}),
        ):
            backend = self.open(other, pipeline=pipeline, **changes)
            self.assertEqual(backend.batch_exists(HASHES), 0, what)
            got = backend.batch_get_v1(HASHES, indices(NUMBERS, other.page_size))
            self.assertEqual(got, [False] * 8, what)
            backend.close()
        backend = self.open(pool, pipeline=pipeline)
        self.assertEqual(backend.batch_exists(HASHES), 8)

    def test_ranks_have_stores_of_their_own(self) -> None:
        pool = pool_of()
        first = self.open(pool, tp_size=2, tp_rank=0)
        second = self.open(pool, tp_size=2, tp_rank=1)
        self.store(first, pool)
        self.assertEqual(second.batch_exists(HASHES), 0)
        self.assertEqual(sorted(os.listdir(self.path)), ["kv0", "kv1"])

    def test_ranks_that_have_the_same(self) -> None:
        """MLA: one rank writes, all read, from one directory."""
        shared = "posix(path={path}/kv, shared=yes, direct=no)"
        pool = pool_of()
        writer = self.open(pool, pipeline=shared, is_mla_model=True, tp_size=2, tp_rank=0)
        reader = self.open(pool, pipeline=shared, is_mla_model=True, tp_size=2, tp_rank=1)
        self.store(writer, pool)
        self.assertEqual(reader.batch_exists(HASHES), 8)
        self.check(reader, pool, [True] * 8)

    def test_what_cannot_work_is_refused(self) -> None:
        pool = pool_of()
        with self.assertRaisesRegex(ValueError, "shared=yes"):
            self.open(pool, is_mla_model=True, tp_size=2)
        with self.assertRaisesRegex(ValueError, "pipeline"):
            self.open(pool, pipeline="")
        self.open(pool, pipeline="posix(path={path}/one)")
        with self.assertRaisesRegex(ValueError, r"\{rank\}"):
            self.open(
                pool, pipeline="posix(path={path}/one, open_wait=0)", tp_size=2, tp_rank=1
            )


class Behaviour(Case):
    def test_as_many_answers_as_keys(self) -> None:
        pool = pool_of()
        backend = self.open(pool)
        for keys, where in ((HASHES, indices([0])), (HASHES, None), ([None] * 8, indices(NUMBERS))):
            self.assertEqual(backend.batch_set_v1(keys, where), [False] * 8)
            self.assertEqual(backend.batch_get_v1(keys, where), [False] * 8)
        self.assertEqual(backend.batch_exists([None]), 0)
        self.assertEqual(backend.batch_set_v1([], indices([0])), [])
        self.assertEqual(backend.batch_get_v1([], indices([0])), [])
        self.assertEqual(backend.batch_exists([]), 0)
        backend.close()
        self.assertEqual(backend.batch_get_v1(HASHES, indices(NUMBERS)), [False] * 8)
        self.assertEqual(backend.batch_set_v1(HASHES, indices(NUMBERS)), [False] * 8)
        self.assertEqual(backend.batch_exists(HASHES), 0)

    def test_a_device_that_hangs(self) -> None:
        """Ends by the deadline, and then nothing comes into the pool."""
        pool = pool_of()
        pipeline = 'delay(hang="#2", hang_for=3s) | posix(path={path}/kv, direct=no)'
        backend = self.open(pool, pipeline=pipeline, extra={"deadline": 0.3})
        fill(pool, [0], [0])
        self.assertEqual(backend.batch_set_v1(HASHES[:1], indices([0])), [True])
        fill(pool, [1], [5])
        self.assertEqual(backend.batch_get_v1(HASHES[:1], indices([1])), [False])
        fill(pool, [1], [6])
        backend.close()
        self.assertEqual(holds(pool, [1], [6]), [True])

    def test_clear(self) -> None:
        pool = pool_of()
        backend = self.open(pool)
        self.store(backend, pool)
        self.assertTrue(backend.clear())
        self.assertEqual(backend.batch_exists(HASHES), 0)
        self.store(backend, pool)
        self.check(backend, pool, [True] * 8)

    def test_metrics(self) -> None:
        pool = pool_of()
        backend = self.open(pool, enable_storage_metrics=True)
        self.store(backend, pool)
        self.check(backend, pool, [True] * 8)
        stats = backend.get_stats()
        self.assertEqual((stats.backup_pgs, stats.prefetch_pgs), ([8], [8]))
        self.assertGreater(stats.prefetch_bandwidth[0], 0)
        self.assertEqual(backend.get_stats().backup_pgs, [])
        self.assertIsNone(self.open(pool, pipeline="null").get_stats())

    def test_the_copying_interface(self) -> None:
        """Without interface_v1 SGLang brings pages as tensors."""
        pool = pool_of()
        backend = self.open(pool, extra={"interface_v1": 0})
        fill(pool, NUMBERS, NUMBERS)
        pages = [pool.get_data_page(n * PAGE) for n in NUMBERS]
        self.assertTrue(backend.batch_set(HASHES, pages))
        self.assertEqual(backend.batch_exists([*HASHES, page_hash(99)]), 8)
        empty = [pool.get_dummy_flat_data_page() for _ in range(9)]
        got = backend.batch_get([*HASHES, page_hash(99)], empty)
        self.assertIsNone(got[8])
        for n in NUMBERS:
            pool.set_from_flat_data_page((20 + n) * PAGE, got[n])
        self.assertEqual(holds(pool, list(range(20, 28)), NUMBERS), [True] * 8)
        self.assertIsNone(backend.get(page_hash(99), empty[8]))
        self.assertTrue(backend.set(page_hash(99), pages[0]))

    def test_pools_that_are_not_kept(self) -> None:
        pool = pool_of()
        backend = self.open(pool)
        self.store(backend, pool)
        self.assertEqual(backend.batch_exists_v2(HASHES).kv_hit_pages, 8)
        mamba = PoolTransfer(name=PoolName.MAMBA, keys=HASHES, host_indices=indices(NUMBERS))
        self.assertEqual(backend.batch_exists_v2(HASHES, [mamba]).kv_hit_pages, 0)
        self.assertEqual(backend.batch_get_v2([mamba]), {PoolName.MAMBA: [False] * 8})
        self.assertEqual(backend.batch_set_v2([mamba]), {PoolName.MAMBA: [False] * 8})

    def test_configuration(self) -> None:
        self.assertEqual(config_of("x").extra_config["class_name"], "CairnHiCache")


if __name__ == "__main__":
    unittest.main(verbosity=2)
