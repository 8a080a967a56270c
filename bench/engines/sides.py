# SPDX-License-Identifier: Apache-2.0
"""One side of side_by_side.py: a store of blocks behind a few lines, by its engine's interpreter.

    sides.py NAME FOLDER BYTES COUNT

NAME is one of SIDES. Memory for COUNT blocks of BYTES each is written first, then the store is
opened in FOLDER. It prints a JSON line of each: usage before the open, {"opened": seconds}, and one
for each line that it reads:

    put FIRST COUNT     {"seconds", "cpu", "good"}: in batches of 16 MiB, two in flight
    get FIRST COUNT     {"seconds", "cpu", "good", "wrong", "missing"}: into the memory; bytes are
                        compared after the clock
    lone FIRST COUNT    {"us": [...]}: one block at a time, nothing else in flight
    fill 0 0            {}: what is written over later is written for the first time
    lookup FIRST COUNT  {"us", "found"}: a key's share of lookups of 64
    usage               {"cpu": seconds, "rss": bytes}, of this process and all of its threads
    quit

What a block holds is a function of its number. rocks.c speaks the same lines.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path = [path for path in sys.path if path != HERE]  # files in it are named as the packages
TESTS = os.path.join(HERE, "..", "..", "python", "tests", "engines")
MIB = 1 << 20
BATCH_BYTES = 16 * MIB
IN_FLIGHT = 2
LOG_BYTES = 2 << 30


def usage() -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {"cpu": used.ru_utime + used.ru_stime, "rss": pages * resource.getpagesize()}


def content(number: int, size: int) -> bytes:
    seed = hashlib.sha256(b"block %d" % number).digest() * 128
    return (seed * (size // len(seed) + 1))[:size]


class Clock:
    """Seconds, and those of the CPU in this process and all of its threads."""

    def __init__(self) -> None:
        self.started, self.cpu = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.started,
                "cpu": time.process_time() - self.cpu}


class Side:
    """`addresses` are those of the blocks' memory."""

    addresses: list[int]

    def __init__(self, folder: str, size: int, count: int) -> None:
        self.folder, self.size, self.count = folder, size, count
        self.batch = max(1, BATCH_BYTES // size)

    def open(self) -> None:
        raise NotImplementedError

    def move(self, put: bool, numbers: list[int]) -> list[bool]:
        """Of each block, whether it was taken or given; blocks are places in the memory."""
        raise NotImplementedError

    def found(self, numbers: list[int]) -> int:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    # ---- commands ------------------------------------------------------------------------------

    def place(self, number: int) -> int:
        return self.addresses[number % self.count]

    def put(self, numbers: list[int]) -> dict[str, Any]:
        for number in numbers:
            ctypes.memmove(self.place(number), content(number, self.size), self.size)
        clock = Clock()
        good = sum(self.move(True, numbers))
        return {**clock.spent(), "good": good}

    def get(self, numbers: list[int]) -> dict[str, Any]:
        for number in numbers:
            ctypes.memset(self.place(number), 0xEE, self.size)
        clock = Clock()
        given = self.move(False, numbers)
        spent = clock.spent()
        good = wrong = 0
        for number, there in zip(numbers, given, strict=True):
            if there:
                held = ctypes.string_at(self.place(number), self.size)
                right = held == content(number, self.size)
                good += right
                wrong += not right
        missing = len(numbers) - good - wrong
        return {**spent, "good": good, "wrong": wrong, "missing": missing}

    def lone(self, numbers: list[int]) -> dict[str, Any]:
        took = []
        for number in numbers:
            started = time.perf_counter()
            self.move(False, [number])
            took.append(round((time.perf_counter() - started) * 1e6, 1))
        return {"us": took}

    def fill(self, numbers: list[int]) -> dict[str, Any]:
        return {}

    def lookup(self, numbers: list[int]) -> dict[str, Any]:
        started = time.perf_counter()
        found = sum(self.found(numbers[i : i + 64]) for i in range(0, len(numbers), 64))
        return {"us": (time.perf_counter() - started) * 1e6 / len(numbers), "found": found}


def flash_in(folder: str) -> str:
    """A log that fits, in the folder; of 2 GiB where it can."""
    system = os.statvfs(folder)
    room = system.f_bavail * system.f_frsize
    size = LOG_BYTES if room > 2 * LOG_BYTES else int(room * 0.9)
    more = "" if size == LOG_BYTES else ", region=4MiB"  # a block fits into one
    path = os.path.join(folder, "kv")
    made = "" if os.path.exists(path) else f", size={size}{more}"
    # A killed process lets go of its files when its I/O is over.
    return f"store(reactors=2) | flash(path={path}, open_wait=10s{made})"


def fill_log(side: Side) -> dict[str, Any]:
    """A log in use has been written over: the first time costs the file system more."""
    for turn in range(LOG_BYTES // (side.size * side.count) + 1):
        first = (turn << 20) + (1 << 40)
        side.move(True, list(range(first, first + side.count)))
    return {}


# ---- LMCache's L2 adapters ----------------------------------------------------------------------


class L2(Side):
    """An adapter of LMCache's, by its own calls."""

    def text(self) -> str:
        raise NotImplementedError

    def __init__(self, folder: str, size: int, count: int) -> None:
        super().__init__(folder, size, count)
        sys.path.insert(0, os.path.join(TESTS, "lmcache"))
        import harness

        self.harness = harness
        self.memory = harness.Memory(size * count + 64 * MIB)
        self.pool = [self.memory.object(size) for _ in range(count)]
        self.addresses = [one.data_ptr for one in self.pool]

    def told(self) -> Any:
        """The memory of which the adapter is told; None: of none."""
        return None

    def open(self) -> None:
        self.adapter = self.harness.Adapter(self.text(), self.told())
        self.it = self.adapter.it
        self.poller = select.poll()
        self.fds = {True: self.it.get_store_event_fd(), False: self.it.get_load_event_fd()}

    def _ended(self, put: bool, task: int, done: dict[int, Any]) -> Any:
        if not put:
            return self.it.query_load_result(task)
        done.update(self.it.pop_completed_store_tasks())
        return done.pop(task, None)

    def move(self, put: bool, numbers: list[int]) -> list[bool]:
        submit = self.it.submit_store_task if put else self.it.submit_load_task
        good: dict[int, bool] = {}
        tasks: dict[int, list[int]] = {}
        done: dict[int, Any] = {}
        poller = select.poll()
        poller.register(self.fds[put], select.POLLIN)
        left = [numbers[i : i + self.batch] for i in range(0, len(numbers), self.batch)]
        while left or tasks:
            while left and len(tasks) < IN_FLIGHT:
                part = left.pop(0)
                keys = [self.harness.key(number) for number in part]
                tasks[submit(keys, [self.pool[n % self.count] for n in part])] = part
            if poller.poll(60000):
                os.read(self.fds[put], 8)
            for task in list(tasks):
                result = self._ended(put, task, done)
                if result is None:
                    continue
                part = tasks.pop(task)
                for i, number in enumerate(part):
                    good[number] = result.is_successful() if put else result.test(i)
        return [good[number] for number in numbers]

    def found(self, numbers: list[int]) -> int:
        return sum(self.adapter.lookup([self.harness.key(number) for number in numbers]))

    def close(self) -> None:
        self.adapter.close()


class Flash(L2):
    def text(self) -> str:
        return str(self.harness.spec(flash_in(self.folder)))

    def fill(self, numbers: list[int]) -> dict[str, Any]:
        return fill_log(self)


class FlashRegistered(Flash):
    """By LMCache's type `plugin`, which says where LMCache's memory is."""

    def text(self) -> str:
        return str(self.harness.plugin_spec(flash_in(self.folder)))

    def told(self) -> Any:
        return self.memory


class Posix(L2):
    def text(self) -> str:
        options = f"path={os.path.join(self.folder, 'kv')}, direct=no, open_wait=10s"
        return str(self.harness.spec(f"store(reactors=2) | posix({options})"))


class FsNative(L2):
    direct = False

    def text(self) -> str:
        return json.dumps({"type": "fs_native", "base_path": os.path.join(self.folder, "kv"),
                           "num_workers": 2, "use_odirect": self.direct})


class FsNativeDirect(FsNative):
    direct = True


# ---- LMCache's disk back end of one process -----------------------------------------------------


class LocalDisk(Side):
    """It gives memory of its own for a get: that is what is compared then."""

    direct = False

    def __init__(self, folder: str, size: int, count: int) -> None:
        super().__init__(folder, size, count)
        sys.path.insert(0, os.path.join(TESTS, "lmcache"))
        import harness

        self.memory = harness.Memory(3 * size * count + 64 * MIB)
        self.pool = [self.memory.object(size) for _ in range(count)]
        self.addresses = [one.data_ptr for one in self.pool]
        self.given: list[Any] = []

    def open(self) -> None:
        import asyncio
        import threading

        from lmcache.v1.config import LMCacheEngineConfig
        from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
        from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend

        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        config = LMCacheEngineConfig.from_defaults(
            local_cpu=False, local_disk=os.path.join(self.folder, "kv"),
            max_local_disk_size=LOG_BYTES / (1 << 30),
            extra_config={"use_odirect": self.direct, "disk_io_threads": 2},
        )
        host = LocalCPUBackend(config, dst_device="cpu", memory_allocator=self.memory.allocator)
        self.disk = LocalDiskBackend(config, self.loop, host, dst_device="cpu")

    def key(self, number: int) -> Any:
        import torch
        from lmcache.utils import CacheEngineKey

        return CacheEngineKey("org/model", 1, 0, number + 1, torch.uint8)

    def move(self, put: bool, numbers: list[int]) -> list[bool]:
        keys = [self.key(number) for number in numbers]
        if put:
            for at in range(0, len(keys), self.batch):
                part = range(at, min(at + self.batch, len(keys)))
                self.disk.batched_submit_put_task(
                    [keys[i] for i in part], [self.pool[numbers[i] % self.count] for i in part]
                )
            # One that failed stays among them for ever.
            until, left = time.monotonic() + 0.5, len(keys)
            while self.disk.disk_worker.put_tasks and time.monotonic() < until:
                if len(self.disk.disk_worker.put_tasks) != left:
                    until, left = time.monotonic() + 0.5, len(self.disk.disk_worker.put_tasks)
                time.sleep(0.0005)
            return [self.disk.contains(key) for key in keys]
        for one in self.given:
            one.ref_count_down()
        self.given = []
        good = []
        for at in range(0, len(keys), self.batch):
            for i, one in enumerate(self.disk.batched_get_blocking(keys[at : at + self.batch])):
                good.append(one is not None)
                if one is not None:
                    self.addresses[numbers[at + i] % self.count] = one.data_ptr
                    self.given.append(one)
        return good

    def put(self, numbers: list[int]) -> dict[str, Any]:
        self.addresses = [one.data_ptr for one in self.pool]
        return super().put(numbers)

    def get(self, numbers: list[int]) -> dict[str, Any]:
        self.addresses = [one.data_ptr for one in self.pool]
        return super().get(numbers)

    def found(self, numbers: list[int]) -> int:
        return sum(self.disk.contains(self.key(number)) for number in numbers)

    def close(self) -> None:
        self.disk.close()


class LocalDiskDirect(LocalDisk):
    direct = True


# ---- vLLM's secondary tiers ---------------------------------------------------------------------


class Tier(Side):
    """A tier over a host cache of `count` rows, by the calls of vLLM's tiering manager."""

    def __init__(self, folder: str, size: int, count: int) -> None:
        super().__init__(folder, size, count)
        import mmap

        import numpy

        # As vLLM's region is: whole pages.
        self.region = mmap.mmap(-1, size * count)
        rows = numpy.frombuffer(self.region, dtype=numpy.int8).reshape(count, size)
        rows[:] = -18
        self.view = memoryview(rows)
        base = int(rows.__array_interface__["data"][0])
        self.addresses = [base + i * size for i in range(count)]
        self.job = 0

    def make(self, spec: Any) -> Any:
        raise NotImplementedError

    def open(self) -> None:
        from types import SimpleNamespace as Of

        from vllm.v1.kv_offload.base import ReqContext

        group = Of(tokens_per_block=32, layer_names=["layer"])
        parallel = Of(tp_size=1, pp_size=1, pcp_size=1, dcp_size=1, rank=0, data_parallel_index=0,
                      is_parallelism_agnostic=True)
        config = Of(
            groups=[group], parallel=parallel, canonical_layout=False, kv_cache_layout="NHD",
            replicated_layout=False, model=Of(name="org/model", dtype="float32"),
            cache=Of(tokens_per_hash=32, blocks_per_chunk=1), enable_kv_cache_events=False,
            worker_kv_bytes_per_block=self.size,
        )
        self.tier = self.make(Of(config=config, blocks_per_chunk=1))
        self.context = ReqContext(req_id="bench")

    def key(self, number: int) -> Any:
        from vllm.v1.kv_offload.base import make_offload_key

        return make_offload_key(hashlib.sha256(b"%d" % number).digest(), 0)

    def move(self, put: bool, numbers: list[int]) -> list[bool]:
        import numpy
        from vllm.v1.kv_offload.tiering.base import TransferJob

        good: dict[int, bool] = {}
        jobs: dict[int, list[int]] = {}
        left = [numbers[i : i + self.batch] for i in range(0, len(numbers), self.batch)]
        submit = self.tier.submit_store if put else self.tier.submit_load
        while left or jobs:
            while left and len(jobs) < IN_FLIGHT:
                part = left.pop(0)
                self.job += 1
                jobs[self.job] = part
                submit(TransferJob(
                    job_id=self.job, keys=[self.key(number) for number in part],
                    chunk_ids=numpy.array([number % self.count for number in part]),
                    is_promotion=not put, req_context=self.context,
                ))
            # It is only ever polled: here without rest, but for what a poll costs.
            for result in self.tier.get_finished_jobs():
                part = jobs.pop(result.job_id)
                whole = set(result.successful_keys or ())
                for number in part:
                    good[number] = result.success or self.key(number) in whole
            time.sleep(0.0001)
        return [good[number] for number in numbers]

    def found(self, numbers: list[int]) -> int:
        from vllm.v1.kv_offload.base import LookupResult, ReqContext

        context = ReqContext(req_id=f"lookup-{time.perf_counter_ns()}")
        self.tier.on_new_request(context)
        left, there = [self.key(number) for number in numbers], 0
        while left:
            answers = [(key, self.tier.lookup(key, context)) for key in left]
            there += sum(answer == LookupResult.HIT for _, answer in answers)
            left = [key for key, answer in answers if answer == LookupResult.RETRY]
            if left:
                self.tier.on_schedule_end(None)
                time.sleep(0.0001)
        self.tier.on_request_finished(context)
        return there

    def close(self) -> None:
        self.tier.shutdown()


class VllmFs(Tier):
    def make(self, spec: Any) -> Any:
        from vllm.v1.kv_offload.tiering.fs.manager import FileSystemTierManager

        return FileSystemTierManager(
            spec, self.view, "fs", root_dir=os.path.join(self.folder, "kv"), n_read_threads=2,
            n_write_threads=2,
        )


class VllmFlash(Tier):
    def make(self, spec: Any) -> Any:
        from cairn.vllm import CairnTier

        return CairnTier(spec, self.view, "CairnTier", pipeline=flash_in(self.folder))

    def fill(self, numbers: list[int]) -> dict[str, Any]:
        return fill_log(self)


SIDES: dict[str, Callable[[str, int, int], Side]] = {
    "flash": Flash,
    "flash-registered": FlashRegistered,
    "posix": Posix,
    "fs_native": FsNative,
    "fs_native-direct": FsNativeDirect,
    "localdisk": LocalDisk,
    "localdisk-direct": LocalDiskDirect,
    "vllm-flash": VllmFlash,
    "vllm-fs": VllmFs,
}


def say(**figures: Any) -> None:
    print(json.dumps(figures), file=OUT, flush=True)


def warm(side: Side) -> None:
    """An open and a close elsewhere: what an engine imports is no time or memory of a side."""
    folder = side.folder
    side.folder = tempfile.mkdtemp(prefix="bench-side-")
    side.open()
    side.close()
    shutil.rmtree(side.folder, ignore_errors=True)
    side.folder = folder


def main() -> int:
    name, folder, size, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    side = SIDES[name](folder, size, count)
    for number in range(count):
        ctypes.memset(side.place(number), 0xEE, size)
    warm(side)
    say(**usage())
    started = time.perf_counter()
    side.open()
    say(opened=time.perf_counter() - started)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "quit":
            break
        if words[0] == "usage":
            say(**usage())
            continue
        first, many = int(words[1]), int(words[2])
        say(**getattr(side, words[0])(list(range(first, first + many))))
    side.close()
    return 0


# What an engine prints is none of the lines.
OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
if __name__ == "__main__":
    sys.exit(main())
