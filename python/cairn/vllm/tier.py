# SPDX-License-Identifier: Apache-2.0
"""CairnTier: a store below vLLM's host cache, by TieringOffloadingSpec.

    "kv_connector": "OffloadingConnector", "kv_connector_extra_config": {
        "spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": ..., "secondary_tiers":
        [{"type": "CairnTier", "module_path": "cairn.vllm", "pipeline": "flash(...)"}]}

All of it runs in the scheduler's thread: a lookup is a probe of memory, a job is one task of the
store, and what has ended is polled. Invariants:
 1. Every task is detached and has a deadline: a job ends by then, and nothing touches vLLM's
    memory after it. With detach=False it ends when nothing touches that memory any more, which a
    device that hangs puts off; I/O is then aimed at it, for it is registered.
 2. Of a load that failed, the leading chunks that are whole are told; the rest are misses until
    they are stored again.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

import vllm
from vllm.logger import init_logger
from vllm.v1.kv_offload.base import (
    LookupResult,
    Medium,
    OffloadingEvent,
    OffloadKey,
    ReqContext,
    RequestOffloadingContext,
)
from vllm.v1.kv_offload.file_mapper import FileMapper
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob

import cairn

from . import stores
from .weights import revision_served

if TYPE_CHECKING:
    from vllm.v1.kv_offload.base import OffloadingSpec
    from vllm.v1.kv_offload.tiering.backpressure import BackpressureDetector

logger = init_logger("vllm.cairn")

SHARD_BYTES_MAX: Final = 16 << 20
BROKEN_MAX: Final = 4096  # keys that failed to load, kept in mind
DRAIN_MAX: Final = 256
CLOSE_SECONDS: Final = 60.0
EBADMSG: Final = -74


def _shards(row: int) -> int:
    """Into how many equal parts a row is cut, none above 16 MiB."""
    count = -(-row // SHARD_BYTES_MAX)
    while row % count:
        count += 1
    return count


class _Job:
    __slots__ = ("keys", "load", "packed", "started", "vllm_id")

    def __init__(self, job: TransferJob, packed: bytes, load: bool) -> None:
        self.vllm_id = job.job_id
        self.keys = list(job.keys)
        self.packed = packed
        self.load = load
        self.started = time.monotonic()


class CairnTier(SecondaryTierManager):
    """pipeline    what the store is made of: "flash(path=/var/lib/cairn.kv, size=200GiB)"
    revision    of the weights; None: a folder's files, or the one commit in the hub's cache
    tenant      two that differ never see each other's blocks
    deadline    seconds a job may take; None: the store's (30 s)
    durability  what a finished store outlives: "memory", "written" or "durable" (power loss)
    detach      False: reads go straight to vLLM's memory, a copy less, and a job waits for a device
                that hangs
    enable_kv_events  tells vLLM's event publisher what was stored
    """

    medium: ClassVar[Medium] = Medium.STORAGE

    def __init__(
        self,
        offloading_spec: OffloadingSpec,
        primary_kv_view: memoryview,
        tier_type: str,
        pipeline: str = "",
        revision: str | None = None,
        tenant: str = "",
        deadline: float | None = None,
        durability: str = "memory",
        detach: bool = True,
        enable_kv_events: bool = False,
        backpressure_detector: BackpressureDetector | None = None,
    ) -> None:
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        if durability not in ("memory", "written", "durable"):
            raise ValueError('CairnTier: durability is "memory", "written" or "durable"')
        self._durability: Any = durability
        self._deadline = deadline
        self._detach = bool(detach)
        self._row = self.block_size_bytes
        self._shards = _shards(self._row)
        self._part = self._row // self._shards
        self._base = _address(primary_kv_view)
        config = offloading_spec.config
        told = self._describe(offloading_spec, revision, tenant)
        self._store = stores.acquire(pipeline, config.parallel.data_parallel_index)
        self._ns = self._store.namespace(**told)
        self._queue = self._store.queue()
        self._registered = None if self._detach else self._register(primary_kv_view.nbytes)
        self._names: OrderedDict[OffloadKey, bytes] = OrderedDict()
        self._storing: dict[OffloadKey, int] = {}  # keys of stores under way
        self._broken: OrderedDict[OffloadKey, None] = OrderedDict()
        self._jobs = 0  # under way
        self._results: list[JobResult] = []
        self._events: list[OffloadingEvent] | None = None
        if enable_kv_events and config.enable_kv_cache_events:
            self._events = []

    def _register(self, size: int) -> Any:
        try:
            return self._store.register(self._base, size)
        except (OSError, ValueError) as error:
            logger.warning("cairn: vLLM's host memory is not registered: %s", error)
            return None

    def _describe(self, spec: OffloadingSpec, revision: str | None, tenant: str) -> dict[str, Any]:
        """What makes chunks comparable: what vLLM's own fs tier names, and what it leaves out."""
        config = spec.config
        mapper = FileMapper.from_offloading_spec(
            "", spec, blocks_per_file=config.cache.blocks_per_chunk, parallel_agnostic=True
        )
        fields = mapper.get_run_config()
        if revision is None:
            revision = revision_served(config.model.name)
        if revision is None:
            raise ValueError(
                f"CairnTier: which commit of {config.model.name} is served cannot be known: the hub"
                ' cache has none or several; say "revision" in the tier, another for other weights'
            )
        layout = json.dumps(
            {
                "vllm": vllm.__version__, "tier": 1, "row": self._row,
                "bytes": config.worker_kv_bytes_per_block,
                "layout": config.kv_cache_layout, "seed": os.getenv("PYTHONHASHSEED", ""),
                **{name: fields[name] for name in fields if not name.endswith("_size")},
                "kv_cache_groups": [
                    (group.tokens_per_block, len(group.layer_names)) for group in config.groups
                ],
            },
            sort_keys=True, default=str,
        )
        return {
            "model": config.model.name,
            "revision": revision,
            "dtype": str(config.model.dtype),
            "layout": layout if len(layout) <= 1000 else _digest(layout),
            "parallel": ",".join(
                f"{name[:-5]}={fields[name]}" for name in sorted(fields) if name.endswith("_size")
            ),
            "tenant": tenant,
            "shard_count": self._shards,
            "shard_bytes": self._part,
        }

    # ---- lookups -------------------------------------------------------------------------------

    def _key(self, key: OffloadKey) -> bytes:
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._ns.key(key)
            if len(self._names) > BROKEN_MAX:
                self._names.popitem(last=False)
        return name

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        if key in self._broken:
            return LookupResult.MISS
        try:
            if self._ns.contains(self._key(key)):
                return LookupResult.HIT
        except cairn.CairnError as error:
            logger.warning("cairn: lookup: %s", error)
            return LookupResult.MISS
        return LookupResult.RETRY if key in self._storing else LookupResult.MISS

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        return RequestOffloadingContext()

    # ---- jobs ----------------------------------------------------------------------------------

    def _items(self, job: TransferJob) -> list[tuple[int, int]]:
        base, row, part = self._base, self._row, self._part
        return [
            (base + int(chunk) * row + i * part, part)
            for chunk in job.chunk_ids
            for i in range(self._shards)
        ]

    def _spread(self, job: TransferJob) -> tuple[list[bytes], list[int]]:
        keys = [self._key(key) for key in job.keys for _ in range(self._shards)]
        return keys, list(range(self._shards)) * len(job.keys)

    def submit_store(self, job_metadata: TransferJob) -> None:
        keys, shards = self._spread(job_metadata)
        job = _Job(job_metadata, b"", load=False)
        try:
            self._ns.dump(
                keys, self._items(job_metadata), shards=shards, durability=self._durability,
                deadline=self._deadline, detach=self._detach, queue=self._queue, context=job,
            )
        except cairn.CairnError as error:
            self._refused(job, error)
            return
        self._jobs += 1
        for key in job.keys:
            self._storing[key] = self._storing.get(key, 0) + 1

    def submit_load(self, job_metadata: TransferJob) -> None:
        keys, shards = self._spread(job_metadata)
        job = _Job(job_metadata, b"".join(keys[:: self._shards]), load=True)
        try:
            self._ns.load(
                keys, self._items(job_metadata), shards=shards, deadline=self._deadline,
                detach=self._detach, queue=self._queue, context=job,
            )
        except cairn.CairnError as error:
            self._refused(job, error)
            return
        self._jobs += 1

    def _refused(self, job: _Job, error: cairn.CairnError) -> None:
        logger.warning("cairn: %s: %s", "load" if job.load else "store", error)
        self._results.append(JobResult(job_id=job.vllm_id, success=False))

    def _ended(self, future: cairn.Future) -> None:
        job = future.context
        assert isinstance(job, _Job)
        self._jobs -= 1
        bad: dict[int, int] = {}
        if future.failed:
            for i, status in enumerate(future.statuses):
                if status < 0:
                    bad.setdefault(i // self._shards, status)
        if job.load:
            self._load_ended(job, bad)
        else:
            self._store_ended(job, bad)
        good = len(job.keys) - len(bad)
        leading = min(bad, default=len(job.keys))
        self._results.append(
            JobResult(
                job_id=job.vllm_id,
                success=not bad,
                successful_keys=tuple(job.keys[:leading]) if bad and leading and job.load else None,
                transfer_time=time.monotonic() - job.started,
                transfer_bytes=good * self._row,
            )
        )

    def _load_ended(self, job: _Job, bad: dict[int, int]) -> None:
        for i in range(min(bad, default=len(job.keys)), len(job.keys)):
            self._broken[job.keys[i]] = None
        while len(self._broken) > BROKEN_MAX:
            self._broken.popitem(last=False)
        damaged = [i for i, status in bad.items() if status == EBADMSG]
        if damaged:
            keys = b"".join(job.packed[16 * i : 16 * i + 16] for i in damaged)
            try:
                self._ns.remove(keys, deadline=self._deadline)
            except cairn.CairnError as error:
                logger.warning("cairn: remove: %s", error)

    def _store_ended(self, job: _Job, bad: dict[int, int]) -> None:
        stored = []
        for i, key in enumerate(job.keys):
            left = self._storing[key] - 1
            if left:
                self._storing[key] = left
            else:
                del self._storing[key]
            if i not in bad:
                self._broken.pop(key, None)
                stored.append(key)
        if self._events is not None and stored:
            self._events.append(OffloadingEvent(keys=stored, medium=self.medium, removed=False))

    def get_finished_jobs(self) -> Iterable[JobResult]:
        if self._jobs:
            for future in self._queue.drain(DRAIN_MAX):
                self._ended(future)
        results, self._results = self._results, []
        return results

    def take_events(self) -> Iterable[OffloadingEvent]:
        events, self._events = self._events, [] if self._events is not None else None
        return events or ()

    def touch(self, keys: Collection[OffloadKey], req_context: ReqContext) -> None:
        return  # a lookup and a load count as uses by themselves

    def drain_jobs(self) -> None:
        """Every task has a deadline: this ends, but with detach=False where a device hangs."""
        while self._jobs:
            for future in self._queue.drain(DRAIN_MAX, 1.0):
                self._ended(future)

    def shutdown(self) -> None:
        if self._queue.closed:
            return
        self.drain_jobs()
        try:
            if self._registered is not None:
                self._registered.close(CLOSE_SECONDS)
            self._queue.close()
            stores.release(self._store)
        except OSError as error:  # a CairnError, or that it takes too long
            logger.warning("cairn: close: %s", error)


def _address(view: memoryview) -> int:
    """Of a view's first byte. The object goes at once: kept, it would hold vLLM's memory."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def _digest(text: str) -> str:
    import hashlib

    return "sha256 " + hashlib.sha256(text.encode()).hexdigest()
