# SPDX-License-Identifier: Apache-2.0
"""cairn.vllm's tier by the order in which vLLM's tiering manager calls it, without vLLM."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import types
import unittest
from typing import Any

import fake_vllm
from kit import Spy, within

fake_vllm.install()
import vllm  # noqa: E402

from cairn.vllm import CairnTier, stores  # noqa: E402

ROW, ROWS = 12288, 16
MISS, HIT, RETRY = (fake_vllm.LookupResult[name] for name in ("MISS", "HIT", "RETRY"))
CONTEXT = fake_vllm.ReqContext("request")
KEYS = [hashlib.sha256(b"%d" % i).digest() + bytes(4) for i in range(8)]


MODEL = "org/model"


def content(number: int, row: int = ROW) -> bytes:
    return hashlib.shake_256(b"row %d" % number).digest(row)


def spec(**changes: Any) -> Any:
    """What vLLM tells a tier of its engine; names of changes are those of its configuration."""
    ns = types.SimpleNamespace
    groups = changes.pop("groups", (ns(tokens_per_block=16, layer_names=("0", "1"), group_id=0),))
    parts: dict[str, dict[str, Any]] = {
        "model": {"name": MODEL, "dtype": "float16"},
        "cache": {"tokens_per_hash": 16, "blocks_per_chunk": 1},
        "parallel": {"tp_size": 1, "pp_size": 1, "pcp_size": 1, "dcp_size": 1,
                     "data_parallel_index": 0, "is_parallelism_agnostic": False},
        "": {"worker_kv_bytes_per_block": ROW, "kv_cache_layout": None,
             "enable_kv_cache_events": True},
    }
    for name, value in changes.items():
        (part,) = (part for part in parts.values() if name in part)
        part[name] = value
    top = parts.pop("")
    return ns(config=ns(groups=groups, **top, **{name: ns(**part) for name, part in parts.items()}))


class Case(unittest.TestCase):
    above = ""
    params: dict[str, Any] = {}

    def setUp(self) -> None:
        self.fresh()
        fake_vllm.HUB.HF_HUB_CACHE = f"{self.path}/hub"
        for name in (MODEL, "org/other"):
            fake_vllm.put_in_hub(name, "1" * 40)
        self.row = ROW
        self.memory = bytearray(ROW * ROWS)
        self.tier: Any = None
        self.addCleanup(self.close)
        self.next = 0

    def fresh(self) -> None:
        """A folder of its own for the next store."""
        self.path = tempfile.mkdtemp(prefix="cairn-tier-")
        self.addCleanup(shutil.rmtree, self.path)

    def close(self) -> None:
        if self.tier is not None:
            self.tier.shutdown()
            self.tier = None

    def flash(self, stages: str = "") -> str:
        return f"{stages}flash(path={self.path}/kv, size=64MiB)"

    def open(self, pipeline: str = "", told: Any = None, **params: Any) -> Any:
        self.close()
        view = memoryview(self.memory).cast("B", (len(self.memory) // self.row, self.row))
        self.tier = CairnTier(told or spec(), view, "CairnTier",
                              pipeline or self.flash(self.above), **{**self.params, **params})
        view.release()  # vLLM lets go of its memory after a shutdown: nothing may keep it
        return self.tier

    def fill(self, row: int, content: bytes) -> None:
        self.memory[row * self.row : (row + 1) * self.row] = content

    def bytes_of(self, row: int) -> bytes:
        return bytes(self.memory[row * self.row : (row + 1) * self.row])

    def submit(self, load: bool, numbers: list[int], rows: list[int]) -> int:
        self.next += 1
        job = fake_vllm.TransferJob(self.next, [KEYS[n] for n in numbers], rows, load, CONTEXT)
        (self.tier.submit_load if load else self.tier.submit_store)(job)
        return self.next

    def ended(self, job: int) -> Any:
        """The result of a job, by polls, as the manager does; one a job."""
        results: list[Any] = []

        def polled() -> bool:
            results.extend(self.tier.get_finished_jobs())
            return bool(results)

        self.assertTrue(within(60, polled), "the job does not end")
        (result,) = results
        self.assertEqual(result.job_id, job)
        return result

    def store(self, numbers: list[int]) -> Any:
        """Of rows 0 and on; these are another's again when the job has ended."""
        for row, number in enumerate(numbers):
            self.fill(row, content(number, self.row))
        result = self.ended(self.submit(False, numbers, list(range(len(numbers)))))
        for row in range(len(numbers)):
            self.fill(row, b"?" * self.row)
        return result

    def load(self, numbers: list[int]) -> Any:
        """To rows 8 and on; those that are told to be there are right."""
        rows = list(range(8, 8 + len(numbers)))
        for row in rows:
            self.fill(row, b"!" * self.row)
        result = self.ended(self.submit(True, numbers, rows))
        there = [KEYS[n] for n in numbers] if result.success else result.successful_keys or ()
        for row, number in zip(rows, numbers, strict=True):
            if KEYS[number] in there:
                self.assertEqual(self.bytes_of(row), content(number, self.row))
        return result

    def counter(self, name: str) -> int:
        return int(self.tier._store.counters()[name])

    def found(self, numbers: list[int]) -> list[Any]:
        self.assertIsNotNone(self.tier.on_new_request(CONTEXT))
        return [self.tier.lookup(KEYS[n], CONTEXT) for n in numbers]


class Rounds(Case):
    def test_round(self) -> None:
        self.open()
        self.assertEqual(self.found([0, 1]), [MISS, MISS])
        result = self.store([0, 1, 2])
        self.assertEqual((result.success, result.transfer_bytes), (True, 3 * ROW))
        self.assertEqual(self.found([0, 1, 2, 3]), [HIT, HIT, HIT, MISS])
        result = self.load([2, 0])
        self.assertEqual((result.success, result.transfer_bytes), (True, 2 * ROW))
        self.assertTrue(self.store([0, 1, 2]).success)  # there already
        self.open()  # a restart
        self.assertEqual(self.found([0, 1, 2, 3]), [HIT, HIT, HIT, MISS])
        self.assertTrue(self.load([0, 1, 2]).success)

    def test_what_is_not_there(self) -> None:
        """Of a load the leading chunks that are whole are told, and the rest are misses."""
        self.open()
        self.store([0, 1, 3])
        result = self.load([0, 1, 2, 3])
        self.assertFalse(result.success)
        self.assertEqual(result.successful_keys, tuple(KEYS[:2]))
        self.assertEqual(self.found([0, 1, 2, 3]), [HIT, HIT, MISS, MISS])
        self.store([2, 3])
        self.assertEqual(self.found([2, 3]), [HIT, HIT])
        self.assertTrue(self.load([0, 1, 2, 3]).success)
        self.assertIsNone(self.load([7]).successful_keys)

    def test_rows_above_a_shard(self) -> None:
        self.row = 17 << 20
        self.memory = bytearray(self.row * 10)
        self.open("null(size=256MiB)")
        self.assertEqual(self.tier._shards, 2)
        self.assertTrue(self.store([0, 1]).success)
        self.assertTrue(self.load([1, 0]).success)

    def test_drain(self) -> None:
        """No task is left, and each job's result is there to be taken."""
        self.open(self.flash("delay(write=50ms) | "))
        jobs = [self.submit(False, [n], [n]) for n in range(4)]
        self.tier.drain_jobs()
        self.assertEqual(sorted(one.job_id for one in self.tier.get_finished_jobs()), jobs)
        self.assertEqual(list(self.tier.get_finished_jobs()), [])

    def test_events(self) -> None:
        self.open(enable_kv_events=True)
        self.store([0, 1])
        self.assertEqual(
            list(self.tier.take_events()),
            [fake_vllm.OffloadingEvent(KEYS[:2], fake_vllm.Medium.STORAGE, removed=False)],
        )
        self.assertEqual(list(self.tier.take_events()), [])

    def test_namespace(self) -> None:
        """Each change alone is a miss."""
        self.open()
        self.store([0])
        group = types.SimpleNamespace(tokens_per_block=32, layer_names=("0", "1"), group_id=0)
        for name, value in (
            ("name", "org/other"), ("dtype", "bfloat16"), ("tokens_per_hash", 32),
            ("blocks_per_chunk", 2), ("tp_size", 2), ("pp_size", 2), ("pcp_size", 2),
            ("dcp_size", 2), ("worker_kv_bytes_per_block", 2 * ROW), ("kv_cache_layout", "HND"),
            ("groups", (group,)),
        ):
            self.open(told=spec(**{name: value}))
            self.assertEqual(self.found([0]), [MISS], name)
        for params in ({"tenant": "t"}, {"revision": "r"}):
            self.open(**params)
            self.assertEqual(self.found([0]), [MISS], params)
        self.row //= 2
        self.open()
        self.assertEqual(self.found([0]), [MISS], "row")
        self.row *= 2
        self.open()
        self.assertEqual(self.found([0]), [HIT])

    def test_commits(self) -> None:
        """Of a name of the hub the commit in its cache counts, where that is one alone."""
        def served() -> Any:
            self.open(told=spec(name="org/moves"))
            return self.found([0])[0]

        with self.assertRaisesRegex(ValueError, r"^CairnTier: .*org/moves.*say \"revision\""):
            served()
        found = []
        for commit in ("a" * 40, "b" * 40, "b" * 40):
            folder = fake_vllm.put_in_hub("org/moves", commit)
            found.append(served())
            self.store([0])
            shutil.rmtree(folder)
        self.assertEqual(found, [MISS, MISS, HIT])
        for commit in ("a" * 40, "b" * 40):
            fake_vllm.put_in_hub("org/moves", commit)
        with self.assertRaisesRegex(ValueError, "none or several"):
            served()
        self.open(told=spec(name="org/moves"), revision="b" * 40)
        self.assertEqual(self.found([0]), [HIT])

    def test_a_folder_whose_files_change(self) -> None:
        folder = f"{self.path}/weights"
        os.mkdir(folder)
        found = []
        for text in ("one", "another", ""):
            if text:
                with open(f"{folder}/model.safetensors", "w", encoding="ascii") as file:
                    file.write(text)
            self.open(told=spec(name=folder))
            found.append(self.found([0])[0])
            self.store([0])
        self.assertEqual(found, [MISS, MISS, HIT])

    def test_version_and_seed(self) -> None:
        self.open()
        self.store([0])
        seed = os.environ.get("PYTHONHASHSEED", "")
        self.addCleanup(os.environ.__setitem__, "PYTHONHASHSEED", seed)
        os.environ["PYTHONHASHSEED"] = "5"
        self.open()
        self.assertEqual(self.found([0]), [MISS])
        os.environ["PYTHONHASHSEED"] = seed
        self.addCleanup(setattr, vllm, "__version__", "fake")
        vllm.__version__ = "another"
        self.open()
        self.assertEqual(self.found([0]), [MISS])
        vllm.__version__ = "fake"
        self.open()
        self.assertEqual(self.found([0]), [HIT])

    def test_detached(self) -> None:
        """No device has an address in vLLM's memory, but where that is asked for."""
        self.open("null(size=64MiB)")
        for do in (self.store, self.load):
            before = self.counter("store.bounced")
            self.assertTrue(do([0, 1]).success)
            bounced = self.counter("store.bounced") - before
            self.assertEqual(bounced > 0, self.params.get("detach", True))

    def test_options(self) -> None:
        """They reach the store."""
        told = spec(data_parallel_index=3)
        self.open(f"posix(path={self.path}/of{{rank}})", told, durability="written", deadline=20)
        self.assertTrue(os.path.isdir(f"{self.path}/of3"))
        self.tier._ns = spy = Spy(self.tier._ns)
        self.assertTrue(self.store([0]).success)
        self.assertTrue(self.load([0]).success)
        self.assertEqual(spy.of("durability"), {("dump", "written")})
        self.assertEqual(spy.of("deadline"), {("dump", 20), ("load", 20)})

    def test_shutdown(self) -> None:
        tier = self.open()
        self.submit(False, [0], [0])
        tier.shutdown()
        tier.shutdown()
        self.assertEqual(stores._open, {})

    def test_refusals(self) -> None:
        for pipeline, params, words in (("null()", {"durability": "now"}, "durability"),
                                        (" ", {}, "pipeline")):
            with self.assertRaisesRegex(ValueError, words):
                self.open(pipeline, **params)


class RoundsBelowCache(Rounds):
    """The same where a memory tier is above: loads out of shared memory."""

    above = "cache(size=16MiB) | "


class RoundsRegistered(Rounds):
    """The same where reads may go straight to vLLM's memory."""

    params = {"detach": False}

    def test_registered(self) -> None:
        self.open()
        self.assertEqual(self.tier._registered.length, len(self.memory))


class Trouble(Case):
    def test_retry_while_it_is_stored(self) -> None:
        self.open(self.flash('delay(hang="#1", hang_for=2s) | '), deadline=30)
        job = self.submit(False, [0], [0])
        self.assertEqual(self.found([0, 1]), [RETRY, MISS])
        self.assertTrue(self.ended(job).success)
        self.assertEqual(self.found([0, 1]), [HIT, MISS])

    def test_retry_ends_with_a_store_that_fails(self) -> None:
        self.open(self.flash('delay(hang="#1", hang_for=1h) | '), deadline=0.2)
        jobs = [self.submit(False, [0], [0])]
        self.assertEqual(self.found([0]), [RETRY])
        self.assertFalse(self.ended(jobs[0]).success)
        self.assertEqual(self.found([0]), [MISS])

    def damage(self, number: int) -> None:
        """Flips a byte of a chunk's in a store that is closed."""
        with open(f"{self.path}/kv", "r+b") as file:
            at = file.read().find(content(number)[:4096])
            self.assertGreater(at, 0)
            file.seek(at + ROW // 2)
            byte = file.read(1)[0]
            file.seek(at + ROW // 2)
            file.write(bytes([byte ^ 0x5A]))

    def test_damaged_bytes_are_a_miss(self) -> None:
        for detach in (True, False):
            params: dict[str, Any] = {"detach": detach}
            with self.subTest(**params):
                self.close()
                self.fresh()
                self.open(**params)
                self.store([0, 1, 2])
                self.close()
                self.damage(1)
                self.open(**params)
                self.assertEqual(self.found([0, 1, 2]), [HIT] * 3)
                result = self.load([0, 1, 2])
                self.assertFalse(result.success)
                self.assertEqual(result.successful_keys, tuple(KEYS[:1]))
                self.assertEqual(self.counter("flash.damaged_blocks"), 1)
                self.assertEqual(self.found([0, 1]), [HIT, MISS])
                self.assertTrue(self.store([0, 1, 2]).success)
                self.assertEqual(self.found([0, 1, 2]), [HIT] * 3)
                self.assertTrue(self.load([0, 1, 2]).success)
                self.open(**params)
                self.assertTrue(self.load([0, 1, 2]).success)

    def test_full_disk(self) -> None:
        self.open(self.flash('fault(rule="dump:ENOSPC:1.0") | '))
        result = self.store([0, 1])
        self.assertEqual((result.success, result.transfer_bytes), (False, 0))
        self.assertEqual(self.found([0, 1]), [MISS, MISS])
        self.assertFalse(self.load([0]).success)
        self.assertEqual(self.bytes_of(8), b"!" * ROW)

    def test_disk_that_takes_some(self) -> None:
        self.open(self.flash('fault(rule="dump:ENOSPC:#2") | '), enable_kv_events=True)
        result = self.store([0, 1, 2, 3])
        self.assertEqual((result.success, result.transfer_bytes), (False, 3 * ROW))
        found = self.found([0, 1, 2, 3])
        self.assertEqual(sorted(one.name for one in found), ["HIT"] * 3 + ["MISS"])
        (event,) = self.tier.take_events()
        self.assertEqual(event.keys, [KEYS[n] for n in range(4) if found[n] is HIT])

    def test_loads_that_fail(self) -> None:
        self.open(self.flash('fault(rule="load:EIO:#2") | '))
        self.store([0, 1, 2])
        result = self.load([0, 1, 2])
        self.assertFalse(result.success)
        leading = len(result.successful_keys or ())
        self.assertEqual(self.found([0, 1, 2]), [HIT] * leading + [MISS] * (3 - leading))

    def late(self, load: bool, stages: str, deadline: float) -> Any:
        """A job that the device keeps past its deadline; when it has ended, its rows are another's.
        """
        self.close()
        self.fresh()
        self.open(self.flash(stages), deadline=deadline)
        rows = [8, 9]
        if load:
            self.assertTrue(self.store([0, 1]).success)
        else:
            self.fill(8, content(0))
            self.fill(9, content(1))
        started = time.monotonic()
        result = self.ended(self.submit(load, [0, 1], rows))
        self.assertLess(time.monotonic() - started, 30)
        for row in rows:
            self.fill(row, b"~" * ROW)
        return result

    def both_read(self) -> bool:
        return self.counter("flash.load_hits") == 2

    def untouched(self) -> None:
        for row in (8, 9):
            self.assertEqual(self.bytes_of(row), b"~" * ROW)

    def test_a_device_that_hangs(self) -> None:
        """Jobs fail by their deadline, and nothing touches the rows afterwards."""
        for load, nth in ((True, 3), (False, 1)):
            with self.subTest(load=load):
                result = self.late(load, f'delay(hang="#{nth}", hang_for=4s) | ', 1.0)
                self.assertFalse(result.success)
                self.assertIsNone(result.successful_keys)
                self.untouched()
                # The device is back: it takes the next job, and the rows are as they were.
                self.assertTrue(within(60, lambda: bool(self.store([2, 3]).success)))
                self.assertTrue(self.tier._store.quiesce(60))
                self.untouched()
                self.close()  # which waits for what hangs
                self.untouched()

    def test_a_device_that_answers_too_late(self) -> None:
        """The I/O is done after the deadline: what it reads does not come into the rows, and what
        it writes is of before."""
        for load, nth in ((True, 3), (False, 1)):
            with self.subTest(load=load):
                for _ in range(10):  # where this process stands still, it is in time, or never done
                    result = self.late(load, f'delay(hang="#{nth}", hang_for=1080ms) | ', 1.0)
                    if not result.success and (not load or within(2, self.both_read)):
                        break
                self.assertFalse(result.success)
                if load:
                    self.assertTrue(self.both_read())
                self.assertTrue(self.tier._store.quiesce(60))
                self.untouched()
                if not load and self.found([0, 1]) == [HIT, HIT]:
                    self.assertTrue(self.load([0, 1]).success)


if __name__ == "__main__":
    unittest.main()
