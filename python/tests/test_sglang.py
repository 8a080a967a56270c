# SPDX-License-Identifier: Apache-2.0
"""cairn.sglang by the contract of SGLang's storage back ends, with stand-ins for SGLang."""

from __future__ import annotations

import abc
import os
import sys
import tempfile
import types
import unittest
from typing import Any

from kit import Spy


class HiCacheStorage(abc.ABC):
    """What SGLang's class does for us."""

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        self.mem_pool_host = mem_pool_host

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        self.registered = host_pool_name


class PoolTransferResult:
    def __init__(self, kv_hit_pages: int, extra_pool_hit_pages: dict[str, int]) -> None:
        self.kv_hit_pages = kv_hit_pages

    @classmethod
    def empty(cls) -> PoolTransferResult:
        return cls(0, {})


def stand_in() -> None:
    name = ""
    for part in ("sglang", "srt", "mem_cache", "hicache_storage"):
        name = f"{name}.{part}" if name else part
        module = types.ModuleType(name)
        module.__path__ = []
        sys.modules[name] = module
    module.HiCacheStorage = HiCacheStorage  # type: ignore[attr-defined]
    module.PoolTransferResult = PoolTransferResult  # type: ignore[attr-defined]


stand_in()
from cairn.sglang import CairnHiCache  # noqa: E402

TOKENS = 4
PART = 3000
PAGES = 16
HASHES = [f"{n:064x}" for n in range(8)]


class Pool:
    """A host pool of K and V, page first."""

    layout = "page_first"
    dtype = "torch.bfloat16"
    page_size = TOKENS
    layer_num = 2

    def __init__(self) -> None:
        self.memory = bytearray(2 * PAGES * PART)
        self.address = _address_of(self.memory)

    def get_page_buffer_meta(self, indices: Any) -> tuple[list[int], list[int]]:
        pointers = []
        for at in range(0, len(indices), TOKENS):
            page = int(indices[at]) // TOKENS
            pointers += [self.address + (half * PAGES + page) * PART for half in (0, 1)]
        return pointers, [PART] * len(pointers)

    def fill(self, page: int, number: int) -> None:
        for half in (0, 1):
            at = (half * PAGES + page) * PART
            self.memory[at : at + PART] = bytes([number * 2 + half + 1]) * PART

    def holds(self, page: int, number: int) -> bool:
        other = Pool.__new__(Pool)
        other.memory = bytearray(len(self.memory))
        other.fill(page, number)
        cuts = [slice((half * PAGES + page) * PART, (half * PAGES + page + 1) * PART)
                for half in (0, 1)]  # fmt: skip
        return all(self.memory[cut] == other.memory[cut] for cut in cuts)


def _address_of(memory: bytearray) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def config(
    pipeline: str, extra: dict[str, Any] | None = None, **changes: Any
) -> types.SimpleNamespace:
    fields: dict[str, Any] = {
        "tp_rank": 0,
        "tp_size": 1,
        "is_mla_model": False,
        "enable_storage_metrics": False,
        "model_name": "org/model",
        "extra_config": {"pipeline": pipeline, "interface_v1": 1, **(extra or {})},
        **changes,
    }
    return types.SimpleNamespace(**fields)


def tokens(pages: list[int]) -> list[int]:
    return [page * TOKENS + i for page in pages for i in range(TOKENS)]


class Flat:
    """A tensor of a page, for the copying interface."""

    def __init__(self, size: int) -> None:
        self.memory = bytearray(size)
        self.data_ptr = lambda: _address_of(self.memory)
        self.numel = lambda: size
        self.element_size = lambda: 1
        self.is_contiguous = lambda: True
        self.contiguous = lambda: self


class Contract(unittest.TestCase):
    above = ""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name
        self.pool = Pool()

    def open(self, pipeline: str = "", extra: dict[str, Any] | None = None, **changes: Any) -> Any:
        pipeline = pipeline or f"{self.above}posix(path={self.path}/{{rank}}, direct=no)"
        backend = CairnHiCache(config(pipeline, extra, **changes), {})
        self.addCleanup(backend.close)
        backend.register_mem_pool_host(self.pool)
        return backend

    def store(self, backend: Any) -> None:
        for n in range(8):
            self.pool.fill(n, n)
        self.assertEqual(backend.batch_set_v1(HASHES, tokens(list(range(8)))), [True] * 8)

    def test_pages(self) -> None:
        backend = self.open()
        self.store(backend)
        self.assertEqual(backend.batch_exists([*HASHES, "ff"]), 8)
        self.assertEqual(backend.batch_exists(["ff", *HASHES]), 0)
        for n in range(8):
            self.pool.fill(n, 40)
        got = backend.batch_get_v1(["ff", *HASHES[:7]], tokens(list(range(8))))
        self.assertEqual(got, [False] + [True] * 7)
        self.assertTrue(all(self.pool.holds(n + 1, n) for n in range(7)))
        backend.close()
        backend = self.open()
        self.assertEqual(backend.batch_exists(HASHES), 8)
        self.assertTrue(backend.clear())
        self.assertEqual(backend.batch_exists(HASHES), 0)

    def test_mistakes_do_not_raise(self) -> None:
        backend = self.open()
        for keys, where in (
            (HASHES, tokens([0])),
            (HASHES, None),
            ([None] * 8, tokens(list(range(8)))),
        ):
            self.assertEqual(backend.batch_set_v1(keys, where), [False] * 8)
            self.assertEqual(backend.batch_get_v1(keys, where), [False] * 8)
        self.assertEqual(backend.batch_exists([None]), 0)
        self.assertEqual(backend.batch_get(HASHES, None), [None] * 8)
        self.assertFalse(backend.batch_set(HASHES, None))
        three = [Flat(PART) for _ in range(3)]
        self.assertEqual(backend.batch_get(HASHES, three), [None] * 8)
        self.assertEqual(backend.batch_get([None], three[:1]), [None])
        self.assertFalse(backend.batch_set(HASHES, three))
        self.assertEqual(backend.batch_get(HASHES[:3], [*three[:2], object()]), [None] * 3)
        self.assertIsNone(backend.get(HASHES[0], object()))
        self.assertFalse(backend.set(HASHES[0], object()))
        self.assertEqual((backend.batch_set_v1([], []), backend.batch_get_v1([], [])), ([], []))
        backend.close()
        backend.close()
        self.assertEqual(backend.batch_get_v1(HASHES, tokens(list(range(8)))), [False] * 8)
        self.assertEqual(backend.batch_set_v1(HASHES, tokens(list(range(8)))), [False] * 8)
        self.assertEqual(backend.batch_exists(HASHES), 0)
        self.assertFalse(backend.clear())

    def test_mistakes_of_pools_do_not_raise(self) -> None:
        backend = self.open()
        self.store(backend)
        pool = types.SimpleNamespace
        kv, mamba = pool(name="kv", keys=HASHES), pool(name="mamba", keys=HASHES[:2])
        hits = [backend.batch_exists_v2(HASHES, transfers).kv_hit_pages for transfers in (
            None, [kv], [kv, mamba], [object()], 7)]
        self.assertEqual(hits, [8, 8, 0, 0, 0])
        self.assertEqual(backend.batch_exists_v2([None]).kv_hit_pages, 0)
        for call in (backend.batch_get_v2, backend.batch_set_v2):
            self.assertEqual(call([kv, mamba]), {"kv": [False] * 8, "mamba": [False] * 2})
            self.assertEqual((call(None), call([])), ({}, {}))
            self.assertEqual(
                call([mamba, object(), kv]), {"mamba": [False] * 2, "kv": [False] * 8}
            )
            self.assertEqual(call([pool(name="kv", keys=None)]), {"kv": []})

    def test_detached(self) -> None:
        """No device has an address in the host pool, but where that is asked for."""
        backend = self.open("null(size=64MiB)", {})
        page = [Flat(PART)]
        detached = not isinstance(self, Registered)
        for what in (
            lambda: self.store(backend),
            lambda: backend.batch_get_v1(HASHES, tokens(list(range(8)))),
            lambda: backend.batch_set(HASHES[:1], page),
            lambda: backend.batch_get(HASHES[:1], page),
        ):
            before = backend.counters()["store.bounced"]
            what()
            self.assertEqual(backend.counters()["store.bounced"] > before, detached)

    def test_options(self) -> None:
        """They reach the store."""
        told = {"durability": "written", "deadline": 20, "rank": "seven"}
        backend = self.open("", told)
        self.assertTrue(os.path.isdir(f"{self.path}/seven"))
        spy = Spy(backend._paged[0])
        backend._paged = spy, backend._paged[1]
        self.store(backend)
        backend.batch_get_v1(HASHES, tokens(list(range(8))))
        flat = Spy(backend._flat_namespace(PART))
        backend._flat[PART] = flat
        self.assertTrue(backend.set(HASHES[0], Flat(PART)))
        self.assertIsNotNone(backend.get(HASHES[0], Flat(PART)))
        for one in (spy, flat):
            self.assertEqual(one.of("durability"), {("dump_sync", "written")})
            self.assertEqual(one.of("deadline"), {("dump_sync", 20), ("load_sync", 20)})

    def test_identity(self) -> None:
        backend = self.open(f"posix(path={self.path}/one)")
        self.store(backend)
        backend.close()
        for extra, changes in (
            ({"tenant": "t"}, {}),
            ({"salt": "s"}, {}),
            ({"revision": "r"}, {}),
            ({}, {"model_name": "other"}),
            ({}, {"tp_size": 2}),
            ({}, {"pp_size": 2, "pp_rank": 1}),
        ):
            backend = self.open(f"posix(path={self.path}/one)", extra, **changes)
            self.assertEqual(backend.batch_exists(HASHES), 0, (extra, changes))
            backend.close()
        for name, value in (("dtype", "fp8"), ("layout", "layer_first"), ("layer_num", 3)):
            setattr(self.pool, name, value)
            backend = self.open(f"posix(path={self.path}/one)")
            self.assertEqual(backend.batch_exists(HASHES), 0, name)
            backend.close()
            delattr(self.pool, name)
        self.assertEqual(self.open(f"posix(path={self.path}/one)").batch_exists(HASHES), 8)

    def test_a_prefix_is_evicted_from_its_end(self) -> None:
        backend = self.open(f"posix(path={self.path}/kv, size=1MiB, direct=no)")
        old, new = ([f"{n:064x}" for n in range(first, first + 48)] for first in (0, 1000))
        for keys in (old, new):
            for at in range(0, len(keys), 8):
                info = types.SimpleNamespace(prefix_keys=keys[:at] or None)
                backend.batch_set_v1(keys[at : at + 8], tokens(list(range(8))), info)
        self.assertGreater(backend.counters()["posix.evicted_blocks"], 0)
        self.assertGreater(backend.batch_exists(old), 0)
        self.assertLess(backend.batch_exists(old), 48)
        self.assertEqual(sum(backend.exists(key) for key in old), backend.batch_exists(old))

    def test_a_store_that_fails(self) -> None:
        backend = self.open(f'fault(rule="dump:ENOSPC:#3") | posix(path={self.path}/kv)')
        answers = backend.batch_set_v1(HASHES, tokens(list(range(8))))
        self.assertEqual(answers.count(False), 1)
        self.assertEqual([backend.exists(key) for key in HASHES], answers)

    def test_a_device_that_hangs(self) -> None:
        backend = self.open(
            f'delay(hang="#2", hang_for=2s) | posix(path={self.path}/kv, direct=no)',
            {"deadline": 0.2},
        )
        self.pool.fill(0, 0)
        self.assertEqual(backend.batch_set_v1(HASHES[:1], tokens([0])), [True])
        self.assertEqual(backend.batch_get_v1(HASHES[:1], tokens([1])), [False])
        self.pool.fill(1, 30)
        backend.close()
        self.assertTrue(self.pool.holds(1, 30))

    def test_refusals(self) -> None:
        refused: tuple[tuple[str, dict[str, Any], str], ...] = (
            ("", {}, "pipeline"),
            ("nosuch()", {}, "nosuch"),
            ("posix(path=/tmp/{rank})", {"is_mla_model": True, "tp_size": 2}, "shared=yes"),
        )
        for pipeline, changes, what in refused:
            with self.assertRaisesRegex(ValueError, what):
                CairnHiCache(config(pipeline, **changes), {})
        with self.assertRaisesRegex(ValueError, "durability"):
            CairnHiCache(config("null", {"durability": "now"}), {})
        backend = CairnHiCache(config("null"), {})
        self.addCleanup(backend.close)
        for sizes, what in (([33 << 20, 33 << 20], "at most 67108864"), ([], "no parts"),
                            ([1 << 20], "no parts")):
            pool = Pool()
            pool.get_page_buffer_meta = lambda indices: ([1 << 20] * 2, sizes)  # type: ignore
            with self.assertRaisesRegex(ValueError, what):
                backend.register_mem_pool_host(pool)


class ContractBelowCache(Contract):
    """The same where a memory tier is above: gets out of shared memory."""

    above = "cache(size=16MiB) | "


class Registered(Contract):
    """The same where I/O may be aimed at the host pool."""

    def open(self, pipeline: str = "", extra: dict[str, Any] | None = None, **changes: Any) -> Any:
        self.pool.kv_buffer = Buffer(self.pool)  # type: ignore[attr-defined]
        backend = super().open(pipeline, {"detach": False, **(extra or {})}, **changes)
        if extra is None and not changes:
            self.assertEqual([one.length for one in backend._registered], [2 * PAGES * PART])
        return backend

    def test_what_cannot_be_registered(self) -> None:
        backend = self.open()
        for wrong in (None, [Buffer(self.pool), Buffer(self.pool)], types.SimpleNamespace()):
            self.pool.kv_buffer = wrong  # type: ignore[attr-defined]
            backend.register_mem_pool_host(self.pool)
            self.store(backend)
            self.assertTrue(backend.clear())
        self.assertTrue(any("not registered" in told for told in backend._told))


class Buffer:
    """The tensor of a host pool."""

    def __init__(self, pool: Pool) -> None:
        self.data_ptr = lambda: pool.address
        self.numel = lambda: len(pool.memory)
        self.element_size = lambda: 1
        self.is_contiguous = lambda: True



if __name__ == "__main__":
    unittest.main()
